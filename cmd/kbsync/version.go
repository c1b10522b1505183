package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: `  kbsync version --json`,
		Args:    exactly(0),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version  string `json:"version"`
				Revision string `json:"revision,omitempty"`
				Go       string `json:"go"`
				Platform string `json:"platform"`
			}{buildVersion(), buildSetting("vcs.revision"), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.out.Result(v, func(w io.Writer) {
				fmt.Fprintf(w, "kbsync %s (%s, %s)\n", v.Version, v.Go, v.Platform)
			})
		},
	}
}

// version is the version of a release. The linker sets it: -X main.version=v1.2.3.
var version string

// buildVersion returns the version of the release, or the version of the module that the go command recorded.
func buildVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}

func buildSetting(key string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}
