// A shop on Go's session managers: shop HANDLER, which is one of handlers.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/alexedwards/scs/goredisstore"
	"github.com/alexedwards/scs/redisstore"
	"github.com/alexedwards/scs/v2"
	"github.com/boj/redistore"
	"github.com/gomodule/redigo/redis"
	"github.com/gorilla/sessions"
	goredis "github.com/redis/go-redis/v9"
)

var handlers = map[string]func(address string) http.Handler{
	"scs, go-redis": func(address string) http.Handler {
		return scsShop(goredisstore.New(goredis.NewClient(&goredis.Options{Addr: address})))
	},
	"scs, redigo": func(address string) http.Handler {
		pool := &redis.Pool{Dial: func() (redis.Conn, error) { return redis.Dial("tcp", address) }}
		return scsShop(redisstore.New(pool))
	},
	"gorilla, redistore": gorillaShop,
}

func scsShop(store scs.Store) http.Handler {
	manager := scs.New()
	manager.Store = store
	answer := func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %d", manager.GetString(r.Context(), "user"), manager.GetInt(r.Context(), "items"))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", func(w http.ResponseWriter, r *http.Request) {
		must(manager.RenewToken(r.Context()))
		manager.Put(r.Context(), "user", r.FormValue("user"))
		answer(w, r)
	})
	mux.HandleFunc("/add", func(w http.ResponseWriter, r *http.Request) {
		manager.Put(r.Context(), "items", manager.GetInt(r.Context(), "items")+1)
		answer(w, r)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		must(manager.Destroy(r.Context()))
		answer(w, r)
	})
	mux.HandleFunc("/state", answer)
	return manager.LoadAndSave(mux)
}

func gorillaShop(address string) http.Handler {
	store, err := redistore.NewRediStore(10, "tcp", address, "", "", []byte("the same on every replica"))
	must(err)
	handle := func(change func(r *http.Request, session *sessions.Session)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			session, err := store.Get(r, "session")
			must(err)
			if change != nil {
				change(r, session)
				must(session.Save(r, w))
			}
			user, _ := session.Values["user"].(string)
			items, _ := session.Values["items"].(int)
			fmt.Fprintf(w, "%s %d", user, items)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/login", handle(func(r *http.Request, session *sessions.Session) {
		session.Values["user"] = r.FormValue("user")
	}))
	mux.HandleFunc("/add", handle(func(_ *http.Request, session *sessions.Session) {
		items, _ := session.Values["items"].(int)
		session.Values["items"] = items + 1
	}))
	mux.HandleFunc("/logout", handle(func(_ *http.Request, session *sessions.Session) {
		session.Options.MaxAge = -1
		clear(session.Values)
	}))
	mux.HandleFunc("/state", handle(nil))
	return mux
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	make, known := handlers[os.Args[1]]
	if !known {
		log.Fatalf("there is no handler named %q", os.Args[1])
	}
	shop := make("127.0.0.1:" + os.Getenv("REDIS_PORT"))
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Getenv("PORT"), shop))
}
