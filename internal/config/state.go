package config

import (
	"errors"
	"net/url"
	"strings"
)

// parseState parses the place of the state: a path, a file URL or the URL of a
// PostgreSQL database. It returns a URL as it is written, with its password.
func parseState(text, dir string) (string, error) {
	switch scheme, isURL := splitScheme(text); {
	case !isURL, scheme == schemeFile:
		place, err := parsePlace(text, dir)
		return place.Dir, err
	case scheme != schemePostgres && scheme != "postgresql":
		return "", errors.New("has an unknown scheme; write a path, or a URL with file:// or postgres://")
	}
	const escape = "write special characters of the user and the password as %XX"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", errors.New("is not the URL of a database; write one, such as postgres://user@host/database, and " + escape)
	case u.Opaque != "", u.Fragment != "", strings.Contains(u.EscapedPath()+u.RawQuery, "@"):
		// A slash, a question mark or a hash in a password ends the host.
		return "", errors.New("has an @ or a # behind its host; " + escape)
	}
	for name := range u.Query() {
		if name == "password" || name == "sslpassword" {
			return "", errors.New("has the parameter " + name + "; remove it, because logs show URLs, and " + passwordPlaces)
		}
	}
	return text, nil
}

// passwordPlaces continues the message about a password in the wrong place.
const passwordPlaces = "set PGPASSWORD, or name a password file with PGPASSFILE"

// isDatabase reports whether a parsed state is the URL of a database.
func isDatabase(state string) bool {
	_, isURL := splitScheme(state)
	return isURL
}

// SharedState reports whether the state is a database, which several processes may share.
func (c *Config) SharedState() bool { return isDatabase(c.State) }

// splitPassword removes the password from the URL of a database. A text without
// a password stays as it is.
func splitPassword(state string) (place string, password Secret) {
	u, err := url.Parse(state)
	if err != nil || !isDatabase(state) {
		return state, Secret{}
	}
	text, given := u.User.Password()
	if !given {
		return state, Secret{}
	}
	u.User = url.User(u.User.Username())
	return u.String(), NewSecret(text)
}

// OpenState returns the path or the URL that opens the state, with the
// password. Only state.Open may get it: State is the text to print.
func (c *Config) OpenState() string {
	u, err := url.Parse(c.State)
	if err != nil || c.StatePassword.IsZero() {
		return c.State
	}
	u.User = url.UserPassword(u.User.Username(), c.StatePassword.Reveal())
	return u.String()
}
