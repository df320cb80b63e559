package shop;

import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import jakarta.servlet.http.HttpSession;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.catalina.Context;
import org.apache.catalina.startup.Tomcat;
import org.redisson.tomcat.RedissonSessionManager;

/**
 * A shop in a Tomcat whose session manager is Redisson's: the arguments are a folder for its files and when changes are
 * written (updateMode).
 */
public class Shop extends HttpServlet {
    public static void main(String[] arguments) throws Exception {
        Path folder = Files.createDirectories(Path.of(arguments[0]));
        Path settings = folder.resolve("redisson.yaml");
        Files.writeString(settings, """
                threads: 2
                nettyThreads: 2
                singleServerConfig:
                  address: "redis://127.0.0.1:%s"
                  connectionMinimumIdleSize: 1
                """.formatted(System.getenv("REDIS_PORT")));
        RedissonSessionManager manager = new RedissonSessionManager();
        manager.setConfigPath(settings.toString());
        // Messages between members are not part of it: each request reads what it needs.
        manager.setReadMode("REDIS");
        manager.setUpdateMode(arguments[1]);

        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(folder.toString());
        tomcat.setPort(Integer.parseInt(System.getenv("PORT")));
        tomcat.getConnector().setProperty("address", "127.0.0.1");
        Context context = tomcat.addContext("", null);
        context.setManager(manager);
        Tomcat.addServlet(context, "shop", new Shop());
        context.addServletMappingDecoded("/*", "shop");
        tomcat.start();
        tomcat.getServer().await();
    }

    @Override
    protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
        switch (request.getRequestURI()) {
            case "/login" -> {
                request.getSession();
                request.changeSessionId();
                request.getSession().setAttribute("user", request.getParameter("user"));
            }
            case "/add" -> request.getSession().setAttribute("items", items(request.getSession()) + 1);
            case "/logout" -> {
                HttpSession session = request.getSession(false);
                if (session != null) {
                    session.invalidate();
                }
            }
            default -> { }
        }
        response.setContentType("text/plain");
        response.getWriter().print(state(request.getSession(false)));
    }

    private static String state(HttpSession session) {
        if (session == null) {
            return " 0";
        }
        Object user = session.getAttribute("user");
        return (user == null ? "" : user) + " " + items(session);
    }

    private static int items(HttpSession session) {
        Object items = session.getAttribute("items");
        return items == null ? 0 : (int) items;
    }
}
