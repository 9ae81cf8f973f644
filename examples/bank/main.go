// Command bank runs the example bank against any issuer.
//
//	go run ./examples/bank -issuer https://login.example.com -client-id bank -key bank.jwk -listen 127.0.0.1:8084
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-auth/watchword/examples/bank/app"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bank:", err)
		os.Exit(1)
	}
}

func run() error {
	issuer := flag.String("issuer", "http://localhost:8080", "the provider")
	listen := flag.String("listen", "127.0.0.1:8084", "address and port")
	base := flag.String("base-url", "http://127.0.0.1:8084", "where browsers reach the bank")
	id := flag.String("client-id", "", "what the provider knows the bank by")
	file := flag.String("key", "", "file with the bank's private key, a JWK for ES256")
	flag.Parse()
	if *id == "" || *file == "" {
		return errors.New("-client-id and -key are needed: examples/bank/README.md registers a bank, whose redirect URI has to be " + app.RedirectURI(*base))
	}
	data, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var key jose.JSONWebKey
	if err := json.Unmarshal(data, &key); err != nil || key.IsPublic() {
		return fmt.Errorf("%s is no private JWK", *file)
	}
	fmt.Printf("Open %s\n", *base)
	server := http.Server{
		Addr: *listen, Handler: app.New(app.Config{Issuer: *issuer, BaseURL: *base, ClientID: *id, Key: key}),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
	}
	return server.ListenAndServe()
}
