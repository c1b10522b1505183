package main

import (
	"context"
	"flag"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"time"
)

// delayed forwards HTTP requests, each after a delay. The requests keep their Host, which the signatures of S3 cover. A POST to
// /-/delay?is=80ms changes the delay; it is zero at first.
func delayed(_ context.Context, args []string) error {
	flags := flag.NewFlagSet("delay", flag.ExitOnError)
	to := flags.String("to", "", "address to forward to, as host:port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return listen(newDelay(*to))
}

func newDelay(to string) http.Handler {
	var delay atomic.Int64
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: to})
			r.Out.Host = r.In.Host
		},
		Transport:    &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /-/delay", func(w http.ResponseWriter, r *http.Request) {
		is, err := time.ParseDuration(r.URL.Query().Get("is"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		delay.Store(int64(is))
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Duration(delay.Load()))
		proxy.ServeHTTP(w, r)
	})
	return mux
}
