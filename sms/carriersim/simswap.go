package carriersim

import (
	"crypto/subtle"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// A network that can be asked when a number's SIM was changed, in the shape of CAMARA's SIM Swap API: /simswap/token gives access tokens (RFC 6749, 4.4), /simswap/v2/check and
// /simswap/v2/retrieve-date answer. POST /swaps {"number","at"} changes a SIM, now if at is left out; a number that ends in 011 had its SIM changed an hour ago, one
// in 012 is not this network's. Faults of vendor simswap go as those of the others.

// Credentials of the simulated network.
const (
	SIMSwapClient = "simulator"
	SIMSwapSecret = "simulator-sim-swap"
	simSwap       = "simswap"
	simSwapToken  = "simulated-access-token"
)

// maxSwaps bounds how many changes are remembered.
const maxSwaps = 5000

func (s *Simulator) simSwapRoutes() *api {
	a := &api{vendor: simSwap}
	a.HandleFunc("POST /token", s.swapToken)
	a.HandleFunc("POST /v2/check", s.swapCheck)
	a.HandleFunc("POST /v2/retrieve-date", s.swapDate)
	return a
}

func (s *Simulator) swapToken(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	switch {
	case id != SIMSwapClient || subtle.ConstantTimeCompare([]byte(secret), []byte(SIMSwapSecret)) != 1:
		answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
	case r.PostFormValue("grant_type") != "client_credentials":
		answer(w, http.StatusBadRequest, map[string]string{"error": "unsupported_grant_type"})
	case !slices.Contains(strings.Fields(r.PostFormValue("scope")), "sim-swap:check"):
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_scope"})
	default:
		answer(w, http.StatusOK, map[string]any{"access_token": simSwapToken, "token_type": "Bearer", "expires_in": 300, "scope": "sim-swap:check"})
	}
}

func swapError(w http.ResponseWriter, status int, code, why string) {
	answer(w, status, map[string]any{"status": status, "code": code, "message": why})
}

// swapAsked reads who is asked about, and since when; it answers what is wrong and gives "" then.
func (s *Simulator) swapAsked(w http.ResponseWriter, r *http.Request) (number string, hours int) {
	if correlator := r.Header.Get("x-correlator"); correlator != "" {
		w.Header().Set("x-correlator", correlator)
	}
	var in struct {
		Number string `json:"phoneNumber"`
		MaxAge *int   `json:"maxAge"`
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case r.Header.Get("Authorization") != "Bearer "+simSwapToken:
		swapError(w, http.StatusUnauthorized, "UNAUTHENTICATED", "Request not authenticated due to missing, invalid, or expired credentials.")
		return "", 0
	case err != nil || json.Unmarshal(body, &in) != nil || !strings.HasPrefix(in.Number, "+") || len(in.Number) < 6 || len(in.Number) > 16:
		swapError(w, http.StatusBadRequest, "INVALID_ARGUMENT", "Client specified an invalid argument, request body or query param.")
		return "", 0
	case in.MaxAge != nil && (*in.MaxAge < 1 || *in.MaxAge > 2400):
		swapError(w, http.StatusBadRequest, "OUT_OF_RANGE", "Client specified an invalid range.")
		return "", 0
	case strings.HasSuffix(in.Number, "012"):
		swapError(w, http.StatusNotFound, "IDENTIFIER_NOT_FOUND", "The phone number is not one of this network.")
		return "", 0
	}
	hours = 240
	if in.MaxAge != nil {
		hours = *in.MaxAge
	}
	return in.Number, hours
}

// swapped is when a number's SIM was changed last.
func (s *Simulator) swapped(number string) (at time.Time, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known = s.swaps[number]
	if !known && strings.HasSuffix(number, "011") {
		return s.options.Now().Add(-time.Hour), true
	}
	return at, known
}

func (s *Simulator) swapCheck(w http.ResponseWriter, r *http.Request) {
	number, hours := s.swapAsked(w, r)
	if number == "" {
		return
	}
	at, known := s.swapped(number)
	answer(w, http.StatusOK, map[string]bool{"swapped": known && s.options.Now().Sub(at) <= time.Duration(hours)*time.Hour})
}

func (s *Simulator) swapDate(w http.ResponseWriter, r *http.Request) {
	number, _ := s.swapAsked(w, r)
	if number == "" {
		return
	}
	var latest any
	if at, known := s.swapped(number); known {
		latest = at.UTC().Format(time.RFC3339)
	}
	answer(w, http.StatusOK, map[string]any{"latestSimChange": latest})
}

// SwapSIM changes the SIM of a number, at that time.
func (s *Simulator) SwapSIM(number string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.swaps[number]; !known && len(s.swaps) >= maxSwaps {
		for oldest := range s.swaps {
			delete(s.swaps, oldest)
			break
		}
	}
	s.swaps[number] = at
}

// postSwaps changes a SIM, for scripts.
func (s *Simulator) postSwaps(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Number string     `json:"number"`
		At     *time.Time `json:"at"`
	}
	document, form := asked(r)
	if form != nil {
		in.Number = form.Get("number")
	} else if err := strictly(document, &in); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"error": `send {"number","at"}`})
		return
	}
	if !strings.HasPrefix(in.Number, "+") {
		answer(w, http.StatusBadRequest, map[string]string{"error": "number is in E.164, with +"})
		return
	}
	at := s.options.Now()
	if in.At != nil {
		at = *in.At
	}
	s.SwapSIM(in.Number, at)
	answer(w, http.StatusOK, map[string]any{"number": in.Number, "at": at.UTC()})
}
