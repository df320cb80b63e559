package shop;

import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpSession;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.PostMapping;
import org.springframework.web.bind.annotation.RequestParam;
import org.springframework.web.bind.annotation.RestController;

/** A shop with Spring Session: properties on the command line choose client and repository. */
@SpringBootApplication
@RestController
public class Shop {
    public static void main(String[] arguments) {
        SpringApplication.run(Shop.class, arguments);
    }

    @PostMapping("/login")
    String login(HttpServletRequest request, @RequestParam String user) {
        request.getSession();
        request.changeSessionId();
        request.getSession().setAttribute("user", user);
        return state(request);
    }

    @PostMapping("/add")
    String add(HttpServletRequest request) {
        request.getSession().setAttribute("items", items(request.getSession()) + 1);
        return state(request);
    }

    @PostMapping("/logout")
    String logout(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
        if (session != null) {
            session.invalidate();
        }
        return " 0";
    }

    @GetMapping("/state")
    String state(HttpServletRequest request) {
        HttpSession session = request.getSession(false);
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
