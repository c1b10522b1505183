package statuspage

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
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
		if p.opts.ReadLocally && fromLoopback(r) && !namesLoopback(r.Host) && !p.authorized(r) {
			http.Error(w, "Without the token, kbsync answers requests to localhost, 127.0.0.1 and [::1] only.", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// mayRead admits requests that may see documents: requests with the token and, if ReadLocally is set, requests from this machine that
// no proxy has passed on. A proxy that does not say so is not recognized.
func (p *Page) mayRead(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.authorized(r) || p.opts.ReadLocally && fromLoopback(r) && !forwarded(r) {
			h(w, r)
			return
		}
		p.refuse(w, true)
	})
}

// mayAct admits requests with the token.
func (p *Page) mayAct(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.authorized(r) {
			h(w, r)
			return
		}
		p.refuse(w, fromOwnPage(r))
	})
}

// refuse responds to a request without the token. A browser then asks for a password, if the request may carry it that way.
func (p *Page) refuse(w http.ResponseWriter, password bool) {
	if p.opts.Token == "" {
		http.Error(w, "This kbsync has no token. Set --listen-token-file.", http.StatusForbidden)
		return
	}
	scheme := `Bearer realm="kbsync"`
	if password {
		scheme = `Basic realm="kbsync", charset="UTF-8"`
	}
	w.Header().Set("WWW-Authenticate", scheme)
	http.Error(w, "A token is required. The log of kbsync watch names its file. Send it as Authorization: Bearer TOKEN. In a browser, enter it as the password.",
		http.StatusUnauthorized)
}

func isRead(r *http.Request) bool { return r.Method == http.MethodGet || r.Method == http.MethodHead }

// authorized reports whether the request carries the token: as a bearer or as a password. A browser keeps a password in memory and
// repeats it unasked, also for another site's form. So a password starts work only from a button of the page.
func (p *Page) authorized(r *http.Request) bool {
	if p.opts.Token == "" {
		return false
	}
	given := ""
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		given = strings.TrimSpace(token)
	} else if _, password, ok := r.BasicAuth(); ok && (isRead(r) || fromOwnPage(r)) {
		given = password
	}
	// The hashes have equal lengths, so the time of the comparison does not reveal the length of the token.
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(p.opts.Token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// fromOwnPage reports whether a browser says that the page itself sent the request. Browsers send Sec-Fetch-Site to the loopback and
// over HTTPS, and Origin with every form; no site can set either. Behind a proxy that changes the host, only Sec-Fetch-Site counts.
func fromOwnPage(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	origin, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && origin.Host != "" && origin.Host == r.Host
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
