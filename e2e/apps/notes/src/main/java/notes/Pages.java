package notes;

import java.net.URI;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpSession;

import org.springframework.http.CacheControl;
import org.springframework.http.HttpStatus;
import org.springframework.http.MediaType;
import org.springframework.http.ResponseEntity;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;
import org.springframework.web.util.HtmlUtils;

@RestController
class Pages {
    private static final String POD = System.getenv().getOrDefault("HOSTNAME", "localhost");

    /** Longest note, in characters. */
    private static final int NOTE_LIMIT = 200;

    @GetMapping("/healthz")
    String healthz() {
        return "ok\n";
    }

    @GetMapping("/")
    ResponseEntity<String> index(HttpServletRequest request) {
        return page(request, HttpStatus.OK, "");
    }

    @GetMapping("/whoami")
    ResponseEntity<Map<String, Object>> whoami(HttpServletRequest request) {
        Map<String, Object> answer = new LinkedHashMap<>();
        answer.put("pod", POD);
        answer.put("user", user(request));
        answer.put("notes", notes(request));
        return answer(HttpStatus.OK).body(answer);
    }

    /** The rule for passwords: secret-NAME. */
    @PostMapping("/login")
    ResponseEntity<String> logIn(HttpServletRequest request, @RequestParam String user, @RequestParam String password) {
        if (!user.matches("[a-z0-9][a-z0-9._-]{0,39}") || !password.equals("secret-" + user)) {
            return page(request, HttpStatus.UNAUTHORIZED, "Name and password do not fit together.");
        }
        HttpSession session = request.getSession();
        // A new id at login, so that an id which somebody planted before is worth nothing.
        request.changeSessionId();
        session.setAttribute("user", user);
        session.setAttribute("notes", new ArrayList<String>());
        return seeOther();
    }

    @PostMapping("/notes")
    ResponseEntity<String> write(HttpServletRequest request, @RequestParam String note) {
        if (user(request) == null) {
            return page(request, HttpStatus.UNAUTHORIZED, "Please log in first.");
        }
        if (note.isBlank() || note.length() > NOTE_LIMIT) {
            return page(request, HttpStatus.UNPROCESSABLE_ENTITY, "An empty note, or too long a one.");
        }
        List<String> notes = notes(request);
        notes.add(note.strip());
        // Spring Session stores what is set.
        request.getSession().setAttribute("notes", notes);
        return seeOther();
    }

    @PostMapping("/logout")
    ResponseEntity<String> logOut(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        if (session != null) {
            session.invalidate();
        }
        return seeOther();
    }

    private static String user(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        return session == null ? null : (String) session.getAttribute("user");
    }

    @SuppressWarnings("unchecked")
    private static List<String> notes(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        Object notes = session == null ? null : session.getAttribute("notes");
        return notes == null ? new ArrayList<>() : (List<String>) notes;
    }

    private static ResponseEntity.BodyBuilder answer(HttpStatus status) {
        // Common practice behind a balancer: says which instance answered.
        return ResponseEntity.status(status).header("X-Served-By", POD).cacheControl(CacheControl.noStore());
    }

    /** After a post: the browser fetches a page, so that a reload does not post again. */
    private static ResponseEntity<String> seeOther() {
        return answer(HttpStatus.SEE_OTHER).location(URI.create("/")).build();
    }

    private static ResponseEntity<String> page(HttpServletRequest request, HttpStatus status, String remark) {
        StringBuilder body = new StringBuilder("<p role=\"alert\">").append(HtmlUtils.htmlEscape(remark)).append("</p>");
        String user = user(request);
        if (user == null) {
            body.append("<form method=\"post\" action=\"/login\"><label>Name <input name=\"user\" required></label> "
                + "<label>Password <input type=\"password\" name=\"password\" required></label> <button>Log in</button></form>"
                + "<p>Any name will do; the password of <code>ada</code> is <code>secret-ada</code>.</p>");
        } else {
            body.append("<p>Notes of ").append(HtmlUtils.htmlEscape(user)).append("</p><ul>");
            notes(request).forEach(note -> body.append("<li>").append(HtmlUtils.htmlEscape(note)).append("</li>"));
            body.append("</ul><form method=\"post\" action=\"/notes\"><label>Note <input name=\"note\" required></label> "
                + "<button>Write</button></form>"
                + "<form method=\"post\" action=\"/logout\"><button>Log out</button></form>");
        }
        return answer(status).contentType(MediaType.TEXT_HTML).body(
            "<!doctype html><html lang=\"en\"><head><title>Notes</title></head><body><h1>Notes</h1>" + body
                + "<footer>Served by <code>" + HtmlUtils.htmlEscape(POD) + "</code></footer></body></html>\n");
    }
}
