package dev.sessionoperator.tomcat;

import java.nio.file.Path;
import java.util.Map;

/** Where the store is, from the environment. */
final class Settings {
    private final Map<String, String> environment;

    private Settings(Map<String, String> environment) {
        this.environment = environment;
    }

    static Settings of(Map<String, String> environment) {
        return new Settings(environment);
    }

    /** What keys begin with, without the colon after it. */
    String keyPrefix() {
        return needed("SESSION_OPERATOR_KEY_PREFIX");
    }

    /** The server, or one of a cluster, as host:port. */
    String address() {
        return needed("SESSION_OPERATOR_HOST") + ":" + needed("SESSION_OPERATOR_PORT");
    }

    boolean tls() {
        return flag("SESSION_OPERATOR_TLS");
    }

    boolean cluster() {
        return flag("SESSION_OPERATOR_CLUSTER");
    }

    String username() {
        return optional("SESSION_OPERATOR_USERNAME");
    }

    String password() {
        return optional("SESSION_OPERATOR_PASSWORD");
    }

    /** The authority of the store's certificate, or null: those of the Java installation. */
    Path authority() {
        String file = optional("SESSION_OPERATOR_CA_FILE");
        return file == null ? null : Path.of(file);
    }

    /** Idle life of a session, or 0: what the application says. */
    int ttlSeconds() {
        String seconds = optional("SESSION_OPERATOR_TTL_SECONDS");
        return seconds == null ? 0 : Integer.parseInt(seconds);
    }

    private boolean flag(String name) {
        return "true".equals(optional(name));
    }

    private String optional(String name) {
        String value = environment.get(name);
        return value == null || value.isEmpty() ? null : value;
    }

    private String needed(String name) {
        String value = optional(name);
        if (value == null) {
            throw new IllegalStateException(name + " is not set: the pod has the files of a SessionPolicy without its variables");
        }
        return value;
    }
}
