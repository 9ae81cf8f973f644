// Take webhooks in Go: LISTEN=127.0.0.1:3000 WEBHOOK_SECRET=whsec_… go run ./examples/webhook
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

func main() {
	secret, err := webhooks.NewWebhook(os.Getenv("WEBHOOK_SECRET")) // whsec_…
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /hooks", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 64<<10))
		if err != nil || secret.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var event struct {
			ID, Type string
			Data     struct{ ID, Status string }
		}
		if err := json.Unmarshal(body, &event); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		log.Println(event.Type, event.Data.ID, event.Data.Status) // unless event.ID was seen before
	})
	log.Fatal(http.ListenAndServe(os.Getenv("LISTEN"), nil))
}
