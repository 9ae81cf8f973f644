package postgres_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Ids of one moment begin alike, so that their rows share pages of an index, and later ones of the day come after them. Otherwise they are random: nobody guesses one from another.
func TestNewID(t *testing.T) {
	t.Parallel()
	for clock, want := range map[string]byte{"00:00:00": 0, "00:05:37": 0, "00:05:38": 1, "12:00:00": 128, "23:54:22": 254, "23:54:23": 255, "23:59:59": 255} {
		at, err := time.Parse(time.DateTime, "2026-03-04 "+clock)
		if err != nil {
			t.Fatal(err)
		}
		if id := postgres.NewIDAt(at); id[0] != want || id.Version() != 4 || id.Variant() != uuid.RFC4122 {
			t.Errorf("%s: %s begins with %d, want %d", clock, id, id[0], want)
		}
	}
	ones := make([]int, 128)
	const n = 2000
	for range n {
		id := postgres.NewID()
		for bit := range ones {
			ones[bit] += int(id[bit/8]>>(7-bit%8)) & 1
		}
	}
	fixed := 0
	for _, count := range ones[8:] {
		if count < n*4/10 || count > n*6/10 {
			fixed++
		}
	}
	if fixed != 6 { // version and variant
		t.Errorf("%d bits are not random", fixed)
	}
}

// The database makes ids of records and events in the same way.
func TestNewIDInSQL(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	for _, statement := range []string{
		"SELECT new_id()",
		"INSERT INTO audit_events (event, outcome) VALUES ('test', 'success') RETURNING id",
		"INSERT INTO events (owner, type, data) VALUES ('operator', 'test', '{}') RETURNING id",
	} {
		before := postgres.NewID()
		var first, second uuid.UUID
		for _, id := range []*uuid.UUID{&first, &second} {
			if err := db.GetContext(t.Context(), id, statement); err != nil {
				t.Fatal(err)
			}
		}
		after := postgres.NewID()
		if first == second || first.Version() != 4 || first[0]-before[0] > after[0]-before[0] { // midnight may be between
			t.Errorf("%s: %s and %s between %s and %s", statement, first, second, before, after)
		}
	}
}
