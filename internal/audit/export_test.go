package audit

import (
	"context"
	"database/sql"
)

// Sweep looks once at what bears old times.
func Sweep(ctx context.Context, s *Sealer) error {
	return connected(ctx, s.DB, sealing, func(conn *sql.Conn) error {
		_, err := s.pass(ctx, conn, true)
		return err
	})
}

// Sign signs a head as the sealer does.
func Sign(h *Head, keys Keys) { h.sign(keys) }

// HashAfter is the hash of the link when it follows the one with hash previous.
func HashAfter(l *Link, previous Hash) Hash { return l.after(previous) }

// Piece is a bound that tests have to pass.
const Piece = piece
