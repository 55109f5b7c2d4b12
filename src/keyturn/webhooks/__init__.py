"""Webhooks: every change of state is told to the endpoints of its workspace, signed, until they took it.

    audit leaf --fan-out, in order, behind a durable cursor--> delivery per endpoint --attempts--> 2xx | dead

One elected worker does both.  The cursor moves in the transaction that writes the deliveries, and a delivery is claimed
in the database before it is sent, so nothing is skipped over a `kill -9`, and two workers do not send the same delivery
at once.  Delivery is at least once, because a worker that is killed or paused while it sends is succeeded by another:
`webhook-id` is the delivery's id, and stays the same over all attempts, so that a receiver can tell a repetition.

An event holds ids and never a body or a secret: the receiver reads the present state by the API.

    guard         which addresses may be talked to; pure
    signature     Standard Webhooks; pure
    rules         which leaf is an event, when to try again, what an answer means; pure
    sender        one attempt over a connection pinned to checked addresses
    outbox        leaves to deliveries
    dispatcher    the elected loop
    service       endpoints; deliveries: the log, redelivery, test
"""
