package statuspage

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// protect is around every answer.
func (p *Page) protect(h http.Handler) http.Handler {
	// Another site's script or form is refused by what the browser says of it; curl and the like say nothing, and pass.
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", contentSecurityPolicy)
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("X-Frame-Options", "DENY")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		// A name of another site that was made to lead here (DNS rebinding) gives that site's scripts a way in, and a browser
		// on this machine comes over the loopback.
		if p.opts.Token == "" && fromLoopback(r) && !namesLoopback(r.Host) {
			http.Error(w, "This address is answered under localhost, 127.0.0.1 and [::1] only, unless kbsync is given a token for it.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// private lets those in who may see documents and act.
func (p *Page) private(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case p.opts.Token != "" && !p.authorized(r):
			scheme := `Bearer realm="kbsync"`
			if reads(r) {
				scheme = `Basic realm="kbsync", charset="UTF-8"`
			}
			w.Header().Set("WWW-Authenticate", scheme)
			http.Error(w, "This needs the token of kbsync's listener, as Authorization: Bearer TOKEN. A browser may give it as the password.", http.StatusUnauthorized)
		case p.opts.Token == "" && (!fromLoopback(r) || forwarded(r)):
			http.Error(w, "This is for the machine that kbsync runs on, for no token is set. Ask from there, or give kbsync a token for its listener.", http.StatusForbidden)
		default:
			h(w, r)
		}
	})
}

func reads(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// authorized says whether the request carries the token. Browsers send a password by themselves, so one is good for reading only.
func (p *Page) authorized(r *http.Request) bool {
	given := ""
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		given = strings.TrimSpace(token)
	} else if _, password, ok := r.BasicAuth(); ok && reads(r) {
		given = password
	}
	// Of equal length, so that the comparison does not tell how long the token is.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(p.opts.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func fromLoopback(r *http.Request) bool {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && addr.Addr().IsLoopback()
}

// forwarded says that a proxy on this machine passes on what somebody else asks.
func forwarded(r *http.Request) bool {
	return r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != ""
}

// namesLoopback says whether a Host header can only mean this machine.
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
