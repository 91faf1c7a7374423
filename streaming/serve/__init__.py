"""The HTTP server: one process beside the agents it serves, which reads their lakes and keeps up with them.

`flagstream serve` (streaming.commands.serve) puts it together: `build_server` takes the agents, routers and
the ways in which somebody may be known. Every request passes, from the outside in,

    Guard         its id, its host, its size and pace; headers of every answer; faults that nobody caught
    Identity      who asks (`request.state.principal`), and how many requests they may make in a minute
    Idempotency   a write sent again under the same key is answered as before
    FastAPI       the routes

How an endpoint is added:

1. Write a function in a module of this package whose name ends in `_api`, on an `APIRouter`, and give the
   router to `ROUTERS` in streaming.serve.routers. Use `def`, not `async def`: it may read the lake, and runs
   in a thread.
2. Its first parameter is the call, `call: Annotated[Call, needs("read")]`, with the scope it takes.
   It knows who calls (`call.who`) and the agent (`call.agent`: settings, spec, definition, `reader()`). What
   writes sets `call.rows`, or `call.cases`; reads and writes go to the audit log by themselves, under the
   function's name.
3. It returns a pydantic model, which the description of the API shows. Faults are raised as the project's
   errors: streaming.serve.problems says which status each becomes. No endpoint makes a problem by hand.

How a page is added stands in streaming.console, a package above this one. Whoever signs in by a cookie is
known by an `Authenticator` (streaming.serve.identity) that is handed over beside: it returns, awaited, their
`Principal`, with scopes by agent, and then `needs` checks pages as it checks endpoints.

Tests ask a server in their own process: streaming.testing.api.
"""
