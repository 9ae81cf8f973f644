package pgserver

import (
	"database/sql"
	"database/sql/driver"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
)

func openDB(c driver.Connector) *sql.DB { return sql.OpenDB(c) }

func isDuplicateDatabase(err error) bool { return pq.As(err, pqerror.DuplicateDatabase) != nil }
