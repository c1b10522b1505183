package state

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// isURL reports whether the path of a state is the URL of a PostgreSQL database.
func isURL(path string) bool {
	scheme, _, ok := strings.Cut(path, "://")
	return ok && (strings.EqualFold(scheme, "postgres") || strings.EqualFold(scheme, "postgresql"))
}

// redacted returns the path of a state without a password.
func redacted(path string) string {
	if !isURL(path) {
		return path
	}
	u, err := splitURL(path)
	if err != nil {
		scheme, _, _ := strings.Cut(path, "://")
		return scheme + "://…"
	}
	if u.RawQuery != "" {
		// A pair that cannot be read is left out.
		query := u.Query()
		for name := range query {
			if strings.Contains(strings.ToLower(name), "password") {
				query.Set(name, "xxxxx")
			}
		}
		u.RawQuery = query.Encode()
	}
	return u.Redacted()
}

// splitURL fails if the place of the password is not certain. Its errors quote nothing, because it may be anywhere.
func splitURL(text string) (*url.URL, error) {
	const escape = "write special characters of the user and the password as %XX, or leave the password to PGPASSWORD"
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("the URL cannot be read; " + escape)
	}
	// A slash, a question mark or a hash in a password ends the host.
	if u.Fragment != "" || strings.Contains(u.EscapedPath()+u.RawQuery, "@") {
		return nil, errors.New("the URL has an @ or a # behind its host; " + escape)
	}
	return u, nil
}

// A postgresAddress is a parsed URL.
type postgresAddress struct {
	conn             *pgx.ConnConfig
	maxConns         int
	maxIdle, maxLife time.Duration // zero for no limit
	lease            time.Duration // zero for the default
}

// The parameters of the pool have the names that pgx gives them. The length of the lease is for tests.
const (
	poolMaxConns = "pool_max_conns"
	poolMaxIdle  = "pool_max_conn_idle_time"
	poolMaxLife  = "pool_max_conn_lifetime"
	leaseLength  = "kbsync_lease"
)

// parseURL reads the URL, and the defaults of libpq's variables (PGPASSWORD, PGSSLMODE and others).
func parseURL(text string) (postgresAddress, error) {
	u, err := splitURL(text)
	if err != nil {
		return postgresAddress{}, err
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return postgresAddress{}, errors.New("the parameters of the URL cannot be read; write special characters as %XX")
	}
	a := postgresAddress{maxConns: 8, maxIdle: 5 * time.Minute}
	if v := query.Get(poolMaxConns); v != "" {
		// Two, because a migration needs a second one for its lock.
		if a.maxConns, err = strconv.Atoi(v); err != nil || a.maxConns < 2 {
			return postgresAddress{}, fmt.Errorf("%s is %q; it must be a number of at least 2", poolMaxConns, v)
		}
	}
	for name, into := range map[string]*time.Duration{poolMaxIdle: &a.maxIdle, poolMaxLife: &a.maxLife, leaseLength: &a.lease} {
		if v := query.Get(name); v != "" {
			if *into, err = time.ParseDuration(v); err != nil || *into < 0 {
				return postgresAddress{}, fmt.Errorf("%s is %q; it must be a duration such as 30m", name, v)
			}
		}
	}
	for _, name := range []string{poolMaxConns, poolMaxIdle, poolMaxLife, leaseLength} {
		query.Del(name)
	}
	setDefault := func(name, value string) {
		if !query.Has(name) {
			query.Set(name, value)
		}
	}
	setDefault("default_query_exec_mode", "exec") // a pooler may give the next statement another connection
	setDefault("connect_timeout", "10")
	setDefault("application_name", "kbsync")
	query.Set("client_encoding", "UTF8")
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20") // libpq takes a plus as it is
	if a.conn, err = pgx.ParseConfig(u.String()); err != nil {
		return postgresAddress{}, errors.New("a part of the URL is not valid: " + parseCause(err))
	}
	return a, nil
}

// parseCause returns the cause of an error of pgx, without the URL that the error quotes.
func parseCause(err error) string {
	cause := "check the host, the port and the parameters"
	if e, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		if inner := e.Unwrap(); inner != nil {
			return inner.Error() + "; " + cause
		}
	}
	return cause
}
