package audit

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/watchword-auth/watchword/internal/postgres"
)

// connected runs do with a connection of its own to the server itself, set up by settings. Its end gives up what belongs to its session.
func connected(ctx context.Context, db *postgres.DB, settings string, do func(*sql.Conn) error) (err error) {
	direct, err := sql.Open("postgres", db.DirectDSN())
	if err != nil {
		return errors.New("audit: the direct database address is not a valid connection string") // the driver's own words may hold it
	}
	defer func() { err = errors.Join(err, direct.Close()) }()
	connecting, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := direct.Conn(connecting)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // one that broke says so where it is used
	if _, err := conn.ExecContext(ctx, `SET application_name = 'watchword audit'; SET jit = off; `+settings); err != nil {
		return err
	}
	return do(conn)
}
