package postgres

import (
	"time"

	"github.com/google/uuid"
)

// NewID makes an id for a row of a table that has a partition for each day: a random UUID with 114 of its 122 random bits, whose first byte is the part of the day, 0 at midnight (UTC) and 255 just before the
// next. Rows that are made one after another then share pages of their indexes, however many have gone before. SQL function new_id makes the same.
func NewID() uuid.UUID { return newID(time.Now()) } //nolint:forbidigo // nothing is decided by it: an id of another time is as good

func newID(now time.Time) uuid.UUID {
	const day = 24 * 60 * 60
	id := uuid.New()
	id[0] = byte(now.Unix() % day * 256 / day)
	return id
}
