package main

import (
	"crypto/tls"
	"errors"
	"net"

	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"

	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// dsnCure says how a connection string is written.
const dsnCure = "write it as postgres://user:password@host/database?sslmode=verify-full; special characters in the password are written %23 for #, %2F for /, %40 for @"

// databaseTrouble says what kept the database from doing its work, and what to do about it. what is empty if that is not why err happened.
func databaseTrouble(err error) (what, cure string) {
	var refused *pq.Error
	var certificate *tls.CertificateVerificationError
	var unreachable *net.OpError
	switch {
	case errors.Is(err, keyring.ErrOtherKeys):
		return "the keys do not open what the database holds: " + oneLine(err), "restore the key files that this database was made with"
	case errors.Is(err, postgres.ErrDSN):
		return "the database address is not a connection string", dsnCure
	case errors.Is(err, pq.ErrSSLNotSupported):
		return "the database server does not speak TLS", "add ?sslmode=disable to the connection string for a server on this machine, or turn on TLS in the server"
	case errors.As(err, &certificate):
		return "the database server's certificate is not trusted: " + certificate.Err.Error(),
			"name the authority that signed it with sslrootcert, and the host as the certificate does"
	case errors.As(err, &refused):
		return refusal(refused)
	case errors.As(err, &unreachable) && unreachable.Op == "dial":
		return "the database does not answer: " + oneLine(err), "see that PostgreSQL runs, and that host and port of the connection string are right"
	case postgres.Unavailable(err):
		return "the database did not do it: " + oneLine(err), "check the connection with: watchword config check"
	}
	return "", ""
}

// refusal explains an answer of the database.
func refusal(err *pq.Error) (what, cure string) {
	says := oneLine(err)
	switch {
	case err.Code.Class() == "28":
		return "the database refuses the role: " + says, "see the user, the password and pg_hba.conf"
	case err.Code == pqerror.InvalidCatalogName:
		return "there is no such database: " + says, "make it, owned by the role: CREATE DATABASE watchword OWNER watchword"
	case err.Code == pqerror.UndefinedTable, err.Code == pqerror.UndefinedColumn, err.Code == pqerror.UndefinedFunction:
		return "the database lacks tables of this version: " + says, "run: watchword migrate up"
	case err.Code == pqerror.TooManyConnections:
		return "the database has no connection left: " + says, "let PostgreSQL have more (max_connections), or each server fewer (database.max_conns)"
	case err.Code == pqerror.InsufficientPrivilege:
		return "the role may not do that: " + says, "let it own its database: ALTER DATABASE watchword OWNER TO watchword"
	}
	return "the database did not do it: " + says, "check the connection with: watchword config check"
}

// databaseFailure says what to do when the database refused.
func databaseFailure(err error) error {
	if what, cure := databaseTrouble(err); what != "" {
		return fail(exitFailed, cure, "%s", what)
	}
	return err
}
