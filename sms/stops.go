package sms

import (
	"context"
	"fmt"
	"time"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// Stop is one reason why nothing is sent to a number, whatever way leads there.
type Stop struct {
	Reason Class      `db:"reason" json:"reason"` // RecipientOptedOut or BlockedFraud
	Scope  string     `db:"scope" json:"scope"`   // what is stopped: "number", "prefix", "country"
	Sender string     `db:"sender" json:"sender,omitempty"`
	Since  time.Time  `db:"since" json:"since"`
	Until  *time.Time `db:"until" json:"until,omitempty"` // nil: until the owner of the number wants texts again
}

// Stops lists why nothing is sent to n at the moment: the opt-outs that stand, and breakers of its prefix and country.
func (d *Desk) Stops(ctx context.Context, n Number) ([]Stop, error) {
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`
		SELECT '%s' AS reason, 'number' AS scope, sender, out_at AS since, NULL::timestamptz AS until FROM opt_outs WHERE recipient = %s AND in_at IS NULL
		UNION ALL
		SELECT '%s', scope, '', since, until FROM send_breakers WHERE until > wall() AND (scope = 'prefix' AND key = %s OR scope = 'country' AND key = %s)
		ORDER BY since`, RecipientOptedOut, q.Bind(d.Keys.Fingerprint(numberLabel, n.Reveal()))+"::bytea", BlockedFraud,
		q.Bind((&Outbox{Keys: d.Keys}).prefix(n))+"::bytea", countryKey(q.Bind(n.Country())+"::text")))
	stops := []Stop{}
	err := d.DB.Select(ctx, &stops, q)
	return stops, err
}
