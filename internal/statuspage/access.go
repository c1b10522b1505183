package statuspage

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// protect wraps every handler: it sets the security headers and refuses requests from other sites.
func (p *Page) protect(h http.Handler) http.Handler {
	// Browsers mark a request from another site's script or form in its headers. Clients such as curl send no such header.
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", contentSecurityPolicy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("X-Frame-Options", "DENY")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		// DNS rebinding: another site's name can resolve to this machine, and its scripts then run in a browser that connects
		// over the loopback.
		if p.opts.Token == "" && fromLoopback(r) && !namesLoopback(r.Host) {
			http.Error(w, "kbsync answers requests to localhost, 127.0.0.1 and [::1] only. To use another name, set --listen-token-file.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// private admits requests that may see documents and call triggers: requests with the token or, if there is no token, requests
// from this machine.
func (p *Page) private(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.opts.Token != "" && !p.authorized(r):
			scheme := `Bearer realm="kbsync"`
			if isRead(r) {
				scheme = `Basic realm="kbsync", charset="UTF-8"`
			}
			w.Header().Set("WWW-Authenticate", scheme)
			http.Error(w, "A token is required: send the token of --listen-token-file as Authorization: Bearer TOKEN. In a browser, enter it as the password.", http.StatusUnauthorized)
		case p.opts.Token == "" && (!fromLoopback(r) || forwarded(r)):
			http.Error(w, "Only the machine that kbsync runs on has access, because no token is set. Send the request from there, or set --listen-token-file.", http.StatusForbidden)
		default:
			h(w, r)
		}
	})
}

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// authorized reports whether the request carries the token. A browser repeats a password unasked, so a password only allows reading.
func (p *Page) authorized(r *http.Request) bool {
	given := ""
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		given = strings.TrimSpace(token)
	} else if _, password, ok := r.BasicAuth(); ok && isRead(r) {
		given = password
	}
	// The hashes have equal lengths, so the time of the comparison does not reveal the length of the token.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(p.opts.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func fromLoopback(r *http.Request) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && addr.Addr().IsLoopback()
}

// forwarded reports whether a proxy passed the request on.
func forwarded(r *http.Request) bool {
	return r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != ""
}

// namesLoopback reports whether a Host header can only mean this machine.
func namesLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
