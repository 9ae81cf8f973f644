// Command demo runs the demo application against any issuer.
//
//	CLIENT_SECRET=… go run ./examples/demo -issuer https://login.example.com -client-id … -listen 127.0.0.1:8081
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/examples/demo/app"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// plainHTTP is the flag without which a redirect to plain http is refused.
func plainHTTP(base string) string {
	if strings.HasPrefix(base, "http://") {
		return " --allow-http"
	}
	return ""
}

func run() error {
	issuer := flag.String("issuer", "http://localhost:8080", "the provider")
	listen := flag.String("listen", "127.0.0.1:8081", "address and port")
	base := flag.String("base-url", "http://127.0.0.1:8081", "where browsers reach the application")
	id := flag.String("client-id", "", "what the provider knows the application by")
	flag.Parse()
	secret := os.Getenv("CLIENT_SECRET")
	if *id == "" || secret == "" {
		return errors.New("-client-id and the variable CLIENT_SECRET are needed. Both come from:\n  watchword client create my-demo --grant-type authorization_code,refresh_token --redirect-uri " +
			app.RedirectURI(*base) + " --post-logout-redirect-uri " + app.PostLogoutURI(*base) + plainHTTP(*base))
	}
	fmt.Printf("Open %s\n", *base)
	server := http.Server{
		Addr: *listen, Handler: app.New(app.Config{Issuer: *issuer, BaseURL: *base, ClientID: *id, ClientSecret: secret}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	return server.ListenAndServe()
}
