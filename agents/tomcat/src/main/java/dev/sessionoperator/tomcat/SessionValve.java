package dev.sessionoperator.tomcat;

import java.io.IOException;

import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpServletResponse;

import org.apache.catalina.Session;
import org.apache.catalina.connector.Request;
import org.apache.catalina.connector.Response;
import org.apache.catalina.valves.ValveBase;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/** Reads the session of each request before the application sees it, and writes it afterwards. */
final class SessionValve extends ValveBase {
    private static final Log LOG = LogFactory.getLog(SessionValve.class);

    /** What was read for the request of this thread, until the request has taken it over. */
    private static final ThreadLocal<StoredSession> READ = new ThreadLocal<>();

    private final SessionManager manager;

    SessionValve(SessionManager manager) {
        super(true);
        this.manager = manager;
    }

    /** The session that was read for the request of this thread. */
    static Session current(String id) {
        StoredSession session = READ.get();
        return session != null && session.getIdInternal().equals(id) ? session : null;
    }

    @Override
    public void invoke(Request request, Response response) throws IOException, ServletException {
        try {
            read(request);
        } catch (IOException e) {
            // Without it the application would begin a new session, and the user would lose the old one for good.
            LOG.error("a session cannot be read", e);
            response.sendError(HttpServletResponse.SC_SERVICE_UNAVAILABLE, "The session store does not answer.");
            return;
        }
        getNext().invoke(request, response);
        Session session = request.getSessionInternal(false);
        if (session instanceof StoredSession && ((StoredSession) session).isValid()) {
            write((StoredSession) session, response);
        }
    }

    private void read(Request request) throws IOException {
        String id = request.getRequestedSessionId();
        // A request that is dispatched again has its session already.
        if (id == null || request.getSessionInternal(false) != null) {
            return;
        }
        StoredSession session = manager.read(id);
        if (session != null) {
            READ.set(session);
            try {
                request.getSessionInternal(false);
            } finally {
                READ.remove();
            }
        }
    }

    private void write(StoredSession session, Response response) throws IOException {
        try {
            manager.write(session);
        } catch (IOException e) {
            LOG.error("a session cannot be written", e);
            if (!response.isCommitted()) {
                response.reset();
                response.sendError(HttpServletResponse.SC_SERVICE_UNAVAILABLE, "The session store does not answer.");
            }
        }
    }
}
