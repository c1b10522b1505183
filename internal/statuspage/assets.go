package statuspage

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
)

//go:embed assets/page.css assets/page.js assets/plots.js assets/uPlot.min.css assets/uPlot.iife.min.js assets/uPlot.LICENSE
var assetFiles embed.FS

// contentSecurityPolicy allows the assets of this page and nothing else: no other site, no script or style within a page.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// assets are the files by name.
var assets = func() map[string]asset {
	all := map[string]asset{}
	entries, err := assetFiles.ReadDir("assets")
	if err != nil {
		panic(err) // the files are in the program
	}
	for _, e := range entries {
		data, err := assetFiles.ReadFile("assets/" + e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(data)
		all[e.Name()] = asset{data, hex.EncodeToString(sum[:6])}
	}
	return all
}()

type asset struct {
	data    []byte
	version string
}

// assetPath returns the address of an asset. It changes with its content, so that browsers can keep it.
func assetPath(name string) string { return "/assets/" + assets[name].version + "/" + name }

// serveAsset serves a file of the program. It needs no token, because it shows nothing of the state.
func serveAsset(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("name")]
	if !ok || a.version != r.PathValue("version") {
		http.NotFound(w, r)
		return
	}
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	kind := types[path.Ext(r.PathValue("name"))]
	if kind == "" {
		kind = "text/plain; charset=utf-8"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.data) // an error means that the client is gone
}
