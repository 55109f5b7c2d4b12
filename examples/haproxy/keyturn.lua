-- Asks Keyturn about a request: `http-request lua.keyturn <options>`, such as keyspace=orders&scopes=orders:read.
--
--   setenv KEYTURN_ADDRESS <address of Keyturn>          before this file is loaded
--   setenv KEYTURN_TOKEN_FILE <file with the management token>
--
-- An admitted request goes on with identity headers, and txn.keyturn_admitted is true.  Every other one is answered
-- here: 401, 403, 429 with Retry-After, or 503.  Copies of the identity headers that a client sent are removed.

local address = assert(os.getenv("KEYTURN_ADDRESS"), "KEYTURN_ADDRESS is not set")
local opened = assert(io.open(assert(os.getenv("KEYTURN_TOKEN_FILE"), "KEYTURN_TOKEN_FILE is not set"), "r"))
local token = assert(opened:read("l"), "the file of the management token is empty"):match("^%s*(.-)%s*$")
opened:close()

local TIMEOUT_MS = 6000
local IDENTITY = {
    "x-keyturn-key-id", "x-keyturn-owner", "x-keyturn-keyspace", "x-keyturn-environment", "x-keyturn-scopes",
    "x-keyturn-plan", "x-keyturn-code", "x-consumer-username", "x-credential-identifier",
}
local FORGEABLE = { ["x-keyturn-token"] = true }
for _, name in ipairs(IDENTITY) do
    FORGEABLE[name] = true
end
-- These belong to a connection, or are written below.
local NOT_SENT = {
    ["host"] = true, ["connection"] = true, ["content-length"] = true, ["transfer-encoding"] = true,
    ["te"] = true, ["trailer"] = true, ["upgrade"] = true, ["expect"] = true, ["keep-alive"] = true, ["cookie"] = true,
    ["forwarded"] = true, ["x-real-ip"] = true, ["accept-encoding"] = true,
}
local REASON = { [401] = "Unauthorized", [403] = "Forbidden", [429] = "Too Many Requests" }
local UNAVAILABLE = '{"type":"urn:keyturn:problem:unavailable","title":"Keys cannot be verified now",'
    .. '"status":503,"code":"unavailable"}'

local function values(headers, name)
    local found = {}
    local given = headers and headers[name]
    if given ~= nil then
        local index = given[0] ~= nil and 0 or 1
        while given[index] ~= nil do
            found[#found + 1] = given[index]
            index = index + 1
        end
    end
    return found
end

local function question(txn)
    local asked = {}
    local given = txn.http:req_get_headers()
    for name in pairs(given) do
        if not NOT_SENT[name] and not name:find("^x%-keyturn%-") and not name:find("^x%-forwarded%-") then
            asked[name] = values(given, name)
        end
    end
    asked["x-keyturn-token"] = { token }
    asked["x-forwarded-method"] = { txn.f:method() }
    asked["x-forwarded-uri"] = { txn.f:pathq() }
    asked["x-forwarded-for"] = { tostring(txn.f:src()) }
    return asked
end

local function refuse(txn, status, headers, body)
    local reply = txn:reply({ status = status, reason = REASON[status] or "Service Unavailable" })
    reply:add_header("content-type", "application/problem+json")
    reply:add_header("cache-control", "no-store")
    for _, name in ipairs({ "www-authenticate", "retry-after", "ratelimit-policy", "ratelimit", "x-request-id" }) do
        for _, value in ipairs(values(headers, name)) do
            reply:add_header(name, value)
        end
    end
    reply:set_body(body)
    txn:done(reply)
end

core.register_action("keyturn", { "http-req" }, function(txn, options)
    local asked = question(txn)
    for name in pairs(txn.http:req_get_headers()) do
        -- Some applications take `_` or `.` in the name of a header for `-`.
        local spelled = name:gsub("%W", "-")
        if FORGEABLE[spelled] then
            txn.http:req_del_header(name)
        end
    end

    local called, answer = pcall(function()
        return core.httpclient():get({
            url = address .. "/auth/traefik?" .. options, headers = asked, timeout = TIMEOUT_MS,
        })
    end)
    local status = called and answer and answer.status or 0
    if status == 401 or status == 403 or status == 429 then
        return refuse(txn, status, answer.headers, answer.body or "")
    end
    -- Only an answer that says so itself admits: another server on that address does not know this header.
    local code = status == 200 and values(answer.headers, "x-keyturn-code")[1]
    if code ~= "VALID" then
        return refuse(txn, 503, { ["retry-after"] = { "1" } }, UNAVAILABLE)
    end
    for _, name in ipairs(IDENTITY) do
        local value = values(answer.headers, name)[1]
        if value ~= nil then
            txn.http:req_set_header(name, value)
        end
    end
    txn:set_var("txn.keyturn_ratelimit", values(answer.headers, "ratelimit")[1])
    txn:set_var("txn.keyturn_ratelimit_policy", values(answer.headers, "ratelimit-policy")[1])
    txn:set_var("txn.keyturn_admitted", true)
end, 1)
