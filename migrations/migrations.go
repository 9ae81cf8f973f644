// Package migrations holds the tables: one SQL file a step, applied in order and embedded in the program.
//
// Every step expands or contracts, never both, so that the version before and the version after can
// serve at the same time. A step that has shipped is never edited.
package migrations

import "embed"

// FS holds the steps as goose reads them.
//
//go:embed *.sql
var FS embed.FS
