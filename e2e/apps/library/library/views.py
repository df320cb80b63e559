import hmac
import re
import socket

from django.http import HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

BOOKS = {"odyssey": "The Odyssey", "emma": "Emma", "ulysses": "Ulysses", "dune": "Dune"}


def served_by(get_response):
    """Common practice behind a balancer: says which instance answered."""

    def middleware(request):
        response = get_response(request)
        response["X-Served-By"] = socket.gethostname()
        response["Cache-Control"] = "no-store"
        return response

    return middleware


class SeeOther(HttpResponseRedirect):
    """After a post: the browser fetches a page, so that a reload does not post again."""

    status_code = 303


def page(request, status=200, note=""):
    context = {
        "reader": request.session.get("reader"),
        "wanted": [(BOOKS[book], remark) for book, remark in request.session.get("wanted", [])],
        "books": BOOKS.items(),
        "note": note,
        "pod": socket.gethostname(),
    }
    return render(request, "page.html", context, status=status)


@require_GET
def healthz(request):
    return HttpResponse("ok\n", content_type="text/plain")


@require_GET
def index(request):
    return page(request)


@require_GET
def whoami(request):
    wanted = [{"book": book, "remark": remark} for book, remark in request.session.get("wanted", [])]
    return JsonResponse({"pod": socket.gethostname(), "user": request.session.get("reader"), "wanted": wanted})


@require_POST
def log_in(request):
    name = request.POST.get("user", "")
    password = request.POST.get("password", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,39}", name) or not hmac.compare_digest(password, f"secret-{name}"):
        return page(request, 401, "Name and password do not fit together.")
    # A new key at login, so that one which somebody planted before is worth nothing.
    request.session.cycle_key()
    request.session["reader"] = name
    request.session["wanted"] = []
    return SeeOther("/")


@require_POST
def note(request):
    book, remark = request.POST.get("book", ""), request.POST.get("remark", "")
    if "reader" not in request.session:
        return page(request, 401, "Please log in first.")
    if book not in BOOKS or len(remark) > 40:
        return page(request, 422, "No such book, or too long a remark.")
    request.session["wanted"] = [*request.session["wanted"], (book, remark)]
    return SeeOther("/")


@require_POST
def log_out(request):
    request.session.flush()
    return SeeOther("/")
