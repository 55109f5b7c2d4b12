"""Service accounts of a Kubernetes cluster, reviewed by the cluster itself (TokenReview).

POST <cluster>/apis/authentication.k8s.io/v1/tokenreviews      as the reviewer
-> status.authenticated, status.user.username = system:serviceaccount:<namespace>:<name>, status.audiences
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from keyturn.logins.claims import any_matches
from keyturn.logins.model import Proof
from keyturn.logins.ports import FetchError
from keyturn.logins.refusal import RefusedLoginError, review_unavailable

if TYPE_CHECKING:
    from keyturn.kernel.secret import Secret
    from keyturn.logins.ports import Fetcher
    from keyturn.wire.logins import KubernetesBinding, KubernetesOptions

REVIEW_PATH: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
ANSWER_BYTES_MAX: Final = 65_536
_NAME: Final = re.compile(r"system:serviceaccount:([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?):([a-z0-9][a-z0-9.-]{0,252})")


async def review(
    fetcher: Fetcher, options: KubernetesOptions, reviewer: Secret, binding: KubernetesBinding, token: Secret
) -> Proof:
    """Return the service account of a token that the cluster knows.

    Raises RefusedLoginError, and UnavailableError (code `token_review_unavailable`) when the cluster cannot be asked.
    """
    spec: dict[str, Any] = {"token": token.reveal()}
    if binding.audiences:
        spec["audiences"] = list(binding.audiences)
    body = msgspec.json.encode({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec})
    headers = [("Accept", "application/json"), ("Content-Type", "application/json")]
    try:
        answer = await fetcher.post(
            options.url.rstrip("/") + REVIEW_PATH,
            body,
            headers,
            bearer=reviewer,
            ca_pem=options.ca_pem,
            bytes_max=ANSWER_BYTES_MAX,
        )
    except FetchError as error:
        raise review_unavailable(str(error)) from None
    if answer.status not in (200, 201):
        raise review_unavailable(f"answered {answer.status}")
    try:
        status = msgspec.json.decode(answer.body).get("status")
    except (msgspec.DecodeError, RecursionError, AttributeError):
        raise review_unavailable("answered what is no review") from None
    namespace, name, uid = _account(status, binding)
    metadata = {"namespace": namespace, "serviceaccount_name": name}
    if uid:
        metadata["serviceaccount_uid"] = uid
    subject = f"system:serviceaccount:{namespace}:{name}"
    return Proof(subject, metadata, phrase=token.reveal_bytes())


def _account(status: Any, binding: KubernetesBinding) -> tuple[str, str, str]:  # noqa: ANN401 -- JSON
    if not isinstance(status, dict) or status.get("authenticated") is not True:
        _refuse("not_authenticated")
    if binding.audiences:
        held = status.get("audiences")
        if not isinstance(held, list) or not {one for one in held if isinstance(one, str)} & set(binding.audiences):
            _refuse("audience")
    user = status.get("user")
    username = user.get("username") if isinstance(user, dict) else None
    found = _NAME.fullmatch(username) if isinstance(username, str) else None
    if found is None:
        _refuse("not_a_service_account")
    namespace, name = found[1], found[2]
    if not any_matches(binding.namespaces, namespace):
        _refuse("namespace")
    if not any_matches(binding.service_accounts, name):
        _refuse("service_account")
    uid = user.get("uid") if isinstance(user, dict) else None
    return namespace, name, uid if isinstance(uid, str) and len(uid) <= 64 else ""


def _refuse(reason: str) -> NoReturn:
    raise RefusedLoginError(reason)
