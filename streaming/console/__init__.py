"""The console: pages for analysts, rendered by the server of the API, and signing in to them.

A page is a function on a router of this package with a `Call` of `needs("read")`; what it shows comes from
the functions behind the endpoints of the API. What somebody does on a page, the page's script asks of the API
itself: there is one way to close a case. `page` of streaming.console.rendering renders a template and sets
the policy under which a browser runs no script but ours.

Whoever is signed in is known by a cookie (`sessions`) that stands for the bearer token which the one-use code
(`sign_in_codes`) was drawn with: its scopes are theirs, and when it ends, so does the session.
"""
