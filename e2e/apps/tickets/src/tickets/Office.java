package tickets;

import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;

/** A ticket office. The session, by whatever manager Tomcat has, is the only place where it keeps anything. */
public final class Office extends HttpServlet {
    private static final long serialVersionUID = 1L;

    /** What is played, by id. */
    static final Map<String, String> PLAYS = new TreeMap<>(Map.of(
        "hamlet", "Hamlet", "faust", "Faust", "godot", "Waiting for Godot", "antigone", "Antigone"));

    /** Name of the attribute with the {@link Visitor}. */
    private static final String VISITOR = "visitor";

    private static final String POD = System.getenv().getOrDefault("HOSTNAME", "localhost");

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
        // Common practice behind a balancer: says which instance answered.
        response.setHeader("X-Served-By", POD);
        response.setHeader("Cache-Control", "no-store");
        switch (request.getMethod() + " " + request.getServletPath()) {
            case "GET /healthz" -> text(response, "text/plain", "ok\n");
            case "GET /" -> page(request, response, 200, "");
            case "GET /whoami" -> whoami(request, response);
            case "POST /login" -> logIn(request, response);
            case "POST /tickets" -> putAside(request, response);
            case "POST /logout" -> logOut(request, response);
            default -> response.sendError(404);
        }
    }

    private static Visitor visitor(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        return session == null ? null : (Visitor) session.getAttribute(VISITOR);
    }

    /** The rule for passwords: secret-NAME. */
    private void logIn(HttpServletRequest request, HttpServletResponse response) throws IOException {
        String name = field(request, "user");
        if (!name.matches("[a-z0-9][a-z0-9._-]{0,39}") || !field(request, "password").equals("secret-" + name)) {
            page(request, response, 401, "Name and password do not fit together.");
            return;
        }
        HttpSession session = request.getSession();
        // A new id at login, so that an id which somebody planted before is worth nothing.
        request.changeSessionId();
        session.setAttribute(VISITOR, new Visitor(name));
        seeOther(response);
    }

    private void putAside(HttpServletRequest request, HttpServletResponse response) throws IOException {
        Visitor visitor = visitor(request);
        if (visitor == null) {
            page(request, response, 401, "Please log in first.");
        } else if (visitor.add(field(request, "play"), field(request, "holder"))) {
            seeOther(response);
        } else {
            page(request, response, 422, "No such play, or no name for the ticket.");
        }
    }

    private void logOut(HttpServletRequest request, HttpServletResponse response) {
        HttpSession session = request.getSession(false);
        if (session != null) {
            session.invalidate();
        }
        seeOther(response);
    }

    /** Whom the office takes the visitor for. */
    private void whoami(HttpServletRequest request, HttpServletResponse response) throws IOException {
        Visitor visitor = visitor(request);
        String tickets = visitor == null ? "" : visitor.tickets().stream()
            .map(ticket -> "{\"play\":" + json(ticket.play()) + ",\"holder\":" + json(ticket.holder()) + "}")
            .collect(Collectors.joining(","));
        String user = visitor == null ? "null" : json(visitor.name());
        text(response, "application/json",
            "{\"pod\":" + json(POD) + ",\"user\":" + user + ",\"tickets\":[" + tickets + "]}\n");
    }

    private void page(HttpServletRequest request, HttpServletResponse response, int status, String note)
        throws IOException {
        Visitor visitor = visitor(request);
        StringBuilder body = new StringBuilder("<p role=\"alert\">").append(escape(note)).append("</p>");
        if (visitor == null) {
            body.append("<form method=\"post\" action=\"/login\"><label>Name <input name=\"user\" required></label> "
                + "<label>Password <input type=\"password\" name=\"password\" required></label> <button>Log in</button></form>"
                + "<p>Any name will do; the password of <code>ada</code> is <code>secret-ada</code>.</p>");
        } else {
            body.append("<p>").append(escape(visitor.name())).append(", you have put aside:</p><ul>");
            visitor.tickets().forEach(ticket -> body.append("<li>").append(escape(PLAYS.get(ticket.play())))
                .append(" for ").append(escape(ticket.holder())).append("</li>"));
            body.append("</ul><form method=\"post\" action=\"/tickets\"><select name=\"play\">");
            PLAYS.forEach((id, title) -> body.append("<option value=\"" + id + "\">" + escape(title) + "</option>"));
            body.append("</select> <label>for <input name=\"holder\" required></label> <button>Put aside</button></form>"
                + "<form method=\"post\" action=\"/logout\"><button>Log out</button></form>");
        }
        response.setStatus(status);
        text(response, "text/html", "<!doctype html><html lang=\"en\"><head><title>Ticket office</title></head><body>"
            + "<h1>Ticket office</h1>" + body + "<footer>Served by <code>" + escape(POD) + "</code></footer></body></html>\n");
    }

    private static void text(HttpServletResponse response, String type, String text) throws IOException {
        response.setContentType(type);
        response.setCharacterEncoding("UTF-8");
        response.getWriter().write(text);
    }

    private static String field(HttpServletRequest request, String name) {
        String value = request.getParameter(name);
        return value == null ? "" : value;
    }

    /** After a post: the browser fetches a page, so that a reload does not post again. */
    private static void seeOther(HttpServletResponse response) {
        response.setStatus(303);
        response.setHeader("Location", "/");
    }

    private static String escape(String text) {
        return text.replace("&", "&amp;").replace("<", "&lt;").replace("\"", "&quot;");
    }

    private static String json(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("\\p{Cntrl}", " ") + '"';
    }
}
