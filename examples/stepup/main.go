// Command stepup runs an API that wants more than a plain sign-in for some of what it does, and an application that gets it: RFC 9470.
//
//	CLIENT_SECRET=… go run ./examples/stepup -issuer http://localhost:8080 -client-id … -acr urn:watchword:acr:2 -max-age 1m
//
// With -api-only it runs the API alone, for the application in node/.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/examples/stepup/api"
	"github.com/watchword-auth/watchword/examples/stepup/app"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "stepup:", err)
		os.Exit(1)
	}
}

func run() error {
	issuer := flag.String("issuer", "http://localhost:8080", "the provider")
	listen := flag.String("listen", "127.0.0.1:8090", "address and port of the application; browsers reach it at -base-url")
	base := flag.String("base-url", "http://127.0.0.1:8090", "where browsers reach the application")
	apiListen := flag.String("api-listen", "127.0.0.1:8091", "address and port of the API")
	apiOnly := flag.Bool("api-only", false, "run the API alone")
	id := flag.String("client-id", "", "what the provider knows the application by")
	levels := flag.String("levels", "urn:watchword:acr:1 urn:watchword:acr:2 urn:watchword:acr:3", "the provider's levels, the weakest first")
	acr := flag.String("acr", "urn:watchword:acr:2", "level that a transfer wants")
	maxAge := flag.Duration("max-age", time.Minute, "how long ago it may have been proven; 0: however long")
	flag.Parse()
	bank, err := api.New(api.Config{Issuer: *issuer, Levels: strings.Fields(*levels), ACR: *acr, MaxAge: *maxAge, Now: time.Now})
	if err != nil {
		return err
	}
	secret := os.Getenv("CLIENT_SECRET")
	if !*apiOnly && (*id == "" || secret == "") {
		return errors.New("-client-id and the variable CLIENT_SECRET are needed. Both come from:\n  watchword client create stepup --first-party --redirect-uri " + *base + "/callback --allow-http")
	}
	ended := make(chan error, 2)
	serve := func(listen string, handler http.Handler) {
		server := http.Server{Addr: listen, Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute}
		ended <- server.ListenAndServe()
	}
	go serve(*apiListen, bank)
	fmt.Printf("The API listens at http://%s\n", *apiListen)
	if !*apiOnly {
		go serve(*listen, app.New(app.Config{Issuer: *issuer, API: "http://" + *apiListen, BaseURL: *base, ClientID: *id, ClientSecret: secret}))
		fmt.Printf("Open %s\n", *base)
	}
	return <-ended
}
