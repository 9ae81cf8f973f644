package gateway

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/rest"
)

// claim is a request that may be repeated. A nil one may not.
type claim = rest.Claim

// stored is an answer that is given again.
type stored struct {
	Status  int      `json:"-"`
	Body    string   `json:"body,omitempty"`    // as it was sent
	Created *created `json:"created,omitempty"` // of a new verification: the rest is in the request, which is the same
	Left    *int     `json:"left,omitempty"`    // of a right code
	Resent  bool     `json:"done,omitempty"`    // another text went out; until the whole answer takes its place
}

// resentAnswer is the answer that a text leaves that goes out again, as an SQL expression.
const resentAnswer = rest.Done

// begin claims a request for this process, or gives the answer that it had. route and request are what has to be the same for it to be the same request.
func (g *Gateway) begin(ctx context.Context, c *Caller, key, route string, request []byte) (*claim, *stored, error) {
	q := new(postgres.Query)
	c.standing(q)
	own, had, standing, err := rest.Begin(ctx, g.DB, q, c.Tenant.ID, string(c.purpose()), key, route, request)
	switch {
	case err != nil:
		return nil, nil, err
	case !standing:
		return nil, nil, g.fallen(c)
	case had == nil:
		return own, nil, nil
	}
	s := &stored{Status: had.Status}
	if err := json.Unmarshal(had.Data, s); err != nil {
		return nil, nil, fmt.Errorf("stored answer: %w", err)
	}
	return nil, s, nil
}
