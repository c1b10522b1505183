package state

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A postgresError is an error of PostgreSQL in one line, with its kind and its remedy. pgx puts the host, the user and the database
// into the errors of connections, and never the password.
type postgresError struct {
	err    error
	kind   error // ErrUnavailable, ErrNoAccess, or nil
	remedy string
}

// Error joins the lines of pgx, which writes one for each address and each attempt, some of them twice.
func (e *postgresError) Error() string {
	var parts []string
	for line := range strings.Lines(e.err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(parts, line) {
			parts = append(parts, line)
		}
	}
	text := strings.Join(parts, ", ")
	text = strings.Replace(text, ":, ", ": ", 1) // the first line announces the others
	if e.remedy == "" {
		return text
	}
	return text + "; " + e.remedy
}

func (e *postgresError) Unwrap() error { return e.err }

func (e *postgresError) Is(target error) bool { return e.kind != nil && target == e.kind }

// isUniqueViolation reports whether a transaction failed because another one has written a row with the same key.
func isUniqueViolation(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == "23505"
}

// postgresKinds returns the kinds of errors and their remedies, by SQLSTATE.
func postgresKinds() map[string]postgresError {
	return map[string]postgresError{
		"28P01": {kind: ErrNoAccess, remedy: "check the user of the URL, and the password in PGPASSWORD, a password file or KBSYNC_STATE"},
		"28000": {kind: ErrNoAccess, remedy: "check the user of the URL, and that the server's pg_hba.conf lets it in"},
		"3D000": {kind: ErrNoAccess, remedy: "create the database first, for example with createdb"},
		"42501": {kind: ErrNoAccess, remedy: "grant the user the privileges that docs/postgres.md lists"},
		"53300": {kind: ErrUnavailable, remedy: "raise the server's max_connections, or lower pool_max_conns in the URL"},
		"25006": {kind: ErrUnavailable, remedy: "the server takes no writes; name the primary server in the URL"},
		"53100": {kind: ErrUnavailable, remedy: "free space on the server's disk"},
		"57P01": {kind: ErrUnavailable}, // the server shuts down
		"57P02": {kind: ErrUnavailable}, // it has crashed
		"57P03": {kind: ErrUnavailable}, // it starts
	}
}

// postgresRemedy adds to an error its kind, and what to check.
func postgresRemedy(err error) error {
	if err == nil {
		return nil
	}
	known := postgresError{}
	answer, answered := errors.AsType[*pgconn.PgError](err)
	if answered {
		known = postgresKinds()[answer.Code]
	}
	_, connecting := errors.AsType[*pgconn.ConnectError](err)
	switch {
	case connecting:
		known.kind = cmp.Or(known.kind, ErrUnavailable)
		known.remedy = cmp.Or(known.remedy, "check that the server runs at this host and port, that it can be reached, and the sslmode")
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, errUnanswered), !answered && pgconn.SafeToRetry(err):
		known.kind, known.remedy = ErrUnavailable, "the connection to the database was lost, or the database does not answer"
	}
	if known.kind == nil {
		return err
	}
	known.err = err
	return &known
}
