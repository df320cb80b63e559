package dev.sessionoperator.tomcat;

import java.io.IOException;
import java.io.Serializable;
import java.io.UncheckedIOException;
import java.util.Enumeration;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

import org.apache.catalina.LifecycleException;
import org.apache.catalina.LifecycleState;
import org.apache.catalina.Session;
import org.apache.catalina.session.ManagerBase;
import org.apache.catalina.session.StandardSession;
import org.apache.juli.logging.Log;
import org.apache.juli.logging.LogFactory;

/**
 * Keeps sessions in a store instead of this process, set up by the variables that a SessionPolicy adds to the container.
 *
 * <p>A session is in memory as long as a request of it runs, and each request has a copy of its own. What a request has
 * changed is written when it ends, the whole session at once; a request that changes nothing only prolongs its life, so
 * that it does not undo what another one wrote meanwhile. A session that was ended is not written again.
 */
public final class SessionManager extends ManagerBase {
    private static final Log LOG = LogFactory.getLog(SessionManager.class);

    private final Settings settings = Settings.of(System.getenv());
    private final Client client = new Client(settings);
    private final Set<String> warned = ConcurrentHashMap.newKeySet();
    private String prefix;

    /** Manager of a web application that has no other one. */
    public SessionManager() {
        // Who has logged in by the container's own means (FORM, BASIC) stays so.
        setPersistAuthentication(true);
    }

    @Override
    public String getName() {
        return "SessionManager";
    }

    @Override
    protected void startInternal() throws LifecycleException {
        super.startInternal();
        prefix = prefix(settings.keyPrefix(), getContext().getPath());
        getContext().getPipeline().addValve(new SessionValve(this));
        try {
            client.ask(key(""), new Object[] {"EXISTS", key("")});
        } catch (IOException e) {
            // Tomcat would not start the application again; requests try anew.
            LOG.warn("the session store cannot be used yet", e);
        }
        setState(LifecycleState.STARTING);
    }

    @Override
    protected void stopInternal() throws LifecycleException {
        setState(LifecycleState.STOPPING);
        try {
            client.close();
        } catch (IOException e) {
            LOG.warn("closing the connections to the session store", e);
        }
        super.stopInternal();
    }

    /** Sessions belong to one web application (Servlet specification, section 7.3): others do not find them by their ids. */
    static String prefix(String common, String path) {
        return common + path.replace('/', ':') + ":session:";
    }

    private String key(String id) {
        return prefix + id;
    }

    /** Reads a session, or gives null where there is none. */
    StoredSession read(String id) throws IOException {
        String key = key(id);
        Object[] answers = client.ask(key, new Object[] {"GET", key}, new Object[] {"PTTL", key});
        if (answers[0] == null) {
            return null;
        }
        StoredSession session = new StoredSession(this);
        Thread thread = Thread.currentThread();
        ClassLoader outer = thread.getContextClassLoader();
        ClassLoader loader = getContext().getLoader().getClassLoader();
        thread.setContextClassLoader(loader);
        try {
            session.read((byte[]) answers[0], loader, (Long) answers[1]);
            session.activate();
        } catch (ClassNotFoundException e) {
            throw new IOException("session " + key + " holds an object of a class that this application does not have", e);
        } finally {
            thread.setContextClassLoader(outer);
        }
        return session;
    }

    /** Writes a session if it has changed. */
    void write(StoredSession session) throws IOException {
        String key = key(session.getIdInternal());
        int seconds = session.getMaxInactiveInterval();
        if (session.isStored() && !session.isChanged()) {
            if (seconds > 0) {
                client.ask(key, new Object[] {"PEXPIRE", key, seconds * 1000L});
            }
            return;
        }
        warn(session);
        session.passivate();
        byte[] stored = session.stored();
        // XX: another request may have ended the session meanwhile.
        String[] condition = session.isStored() ? new String[] {"XX"} : new String[0];
        String[] life = seconds > 0 ? new String[] {"PX", Long.toString(seconds * 1000L)} : new String[0];
        Object[] command = new Object[3 + condition.length + life.length];
        command[0] = "SET";
        command[1] = key;
        command[2] = stored;
        System.arraycopy(condition, 0, command, 3, condition.length);
        System.arraycopy(life, 0, command, 3 + condition.length, life.length);
        client.ask(key, command);
        session.written();
    }

    /** Tomcat leaves out what cannot be stored, silently. */
    private void warn(StoredSession session) {
        for (Enumeration<String> names = session.getAttributeNames(); names.hasMoreElements();) {
            String name = names.nextElement();
            if (!(session.getAttribute(name) instanceof Serializable) && warned.add(name)) {
                LOG.warn("attribute " + name + " of the session is lost when the request ends: its class is not Serializable");
            }
        }
    }

    @Override
    protected StandardSession getNewSession() {
        return new StoredSession(this);
    }

    @Override
    public Session createSession(String id) {
        Session session = super.createSession(id);
        if (settings.ttlSeconds() > 0) {
            session.setMaxInactiveInterval(settings.ttlSeconds());
        }
        return session;
    }

    /** Asked only when a request has not got its session from {@link SessionValve}. */
    @Override
    public Session findSession(String id) throws IOException {
        return id == null ? null : SessionValve.current(id);
    }

    /** Nothing is kept in this process. */
    @Override
    public void add(Session session) {
        // It is written when its request ends.
    }

    /** A session that ends, or gets another id. */
    @Override
    public void remove(Session session, boolean update) {
        super.remove(session, update);
        String key = key(session.getIdInternal());
        try {
            client.ask(key, new Object[] {"DEL", key});
        } catch (IOException e) {
            throw new UncheckedIOException("the session could not be ended", e);
        }
    }

    @Override
    public void load() {
        // Nothing to do: sessions are read one by one.
    }

    @Override
    public void unload() {
        // Nothing to do: sessions are written one by one.
    }
}
