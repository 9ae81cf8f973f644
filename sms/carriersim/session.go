package carriersim

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"net/http"
	"time"
)

// session is a code that a vendor made itself and checks itself, or that it was given to check.
type session struct {
	id       string
	vendor   string
	to       string
	code     string
	own      bool // the customer gave the code
	attempts int  // wrong answers so far
	limit    int  // of wrong answers
	sends    int  // asked for
	carried  int  // taken
	until    time.Time
	status   string // "pending", then "approved", "canceled"
}

// verdicts of a session.
const (
	right     = "right"
	wrong     = "wrong"
	expired   = "expired"
	exhausted = "exhausted"
	gone      = "gone"
)

// open makes a session. code is the customer's own, or "" for one of the vendor's making.
func (s *Simulator) open(vendor, to, code string, digits, limit int, life time.Duration) *session {
	own := code != ""
	if !own {
		n, err := rand.Int(rand.Reader, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil))
		if err != nil {
			panic(err) // documented never to happen
		}
		code = fmt.Sprintf("%0*d", digits, n)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	id := fmt.Sprintf("%s-session-%06d", vendor, s.seq)
	if d := s.dialects[vendor]; d.session != nil {
		id = d.session(s.seq)
	}
	open := &session{id: id, vendor: vendor, to: to, code: code, own: own, limit: limit, until: s.options.Now().Add(life), status: "pending"}
	s.sessions[open.id] = open
	if s.order = append(s.order, open.id); len(s.order) > maxSessions {
		delete(s.sessions, s.order[0])
		s.order = s.order[1:]
	}
	return open
}

// find is a session that is still open, by id or by number; nil when there is none.
func (s *Simulator) find(vendor, id, to string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.order) - 1; i >= 0; i-- {
		open := s.sessions[s.order[i]]
		if open.vendor == vendor && open.status == "pending" && s.options.Now().Before(open.until) && (id != "" && open.id == id || id == "" && open.to == to) {
			return open
		}
	}
	return nil
}

// check answers as the vendor would: right at most once.
func (s *Simulator) check(vendor, id, code string) (verdict string, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.sessions[id]
	switch {
	case open == nil || open.vendor != vendor || open.status != "pending":
		return gone, 0
	case !s.options.Now().Before(open.until):
		return expired, 0
	case open.attempts >= open.limit:
		return exhausted, 0
	case open.code != code:
		open.attempts++
		return wrong, open.limit - open.attempts
	}
	open.status = "approved"
	return right, open.limit - open.attempts
}

// end closes a session and reports whether it was open.
func (s *Simulator) end(vendor, id, status string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.sessions[id]
	if open == nil || open.vendor != vendor || open.status != "pending" {
		return false
	}
	open.status = status
	return true
}

// send carries a session's code.
func (s *Simulator) sendCode(r *http.Request, open *session, in submission) outcome {
	in.vendor, in.to = open.vendor, open.to
	in.text = "Your verification code is: " + open.code
	out := s.submit(r, in)
	if out.class != "" && open.carried == 0 {
		s.mu.Lock()
		delete(s.sessions, open.id)
		for i, id := range s.order {
			if id == open.id {
				s.order = append(s.order[:i], s.order[i+1:]...)
				break
			}
		}
		s.mu.Unlock()
	} else if out.class == "" {
		s.mu.Lock()
		open.carried++
		s.mu.Unlock()
	}
	return out
}
