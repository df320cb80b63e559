"""A shop on Starlette with starsessions."""

import os

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware, regenerate_session_id
from starsessions.stores.redis import RedisStore


def answer(request):
    return PlainTextResponse(f"{request.session.get('user', '')} {request.session.get('items', 0)}")


async def login(request):
    regenerate_session_id(request)
    request.session["user"] = request.query_params["user"]
    return answer(request)


async def add(request):
    request.session["items"] = request.session.get("items", 0) + 1
    return answer(request)


async def logout(request):
    request.session.clear()
    return answer(request)


async def state(request):
    return answer(request)


store = RedisStore(f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0")
app = Starlette(
    routes=[
        Route("/login", login, methods=["POST"]),
        Route("/add", add, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/state", state),
    ],
    middleware=[
        Middleware(SessionMiddleware, store=store, cookie_https_only=False, lifetime=3600),
        Middleware(SessionAutoloadMiddleware),
    ],
)
uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
