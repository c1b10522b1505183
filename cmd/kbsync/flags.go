package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbsync/kbsync/internal/config"
)

// A setting is the flag of a config setting. It keeps the text of each value; config.Parse reads it, together with the
// environment and the config file.
type setting struct {
	config.Setting
	values []string
}

var _ pflag.Value = (*setting)(nil)

// String returns the default. Only the help uses it.
func (s *setting) String() string { return s.Default }

// Set appends a value.
func (s *setting) Set(text string) error {
	s.values = append(s.values, text)
	return nil
}

// Type returns the kind of the value for the help.
func (s *setting) Type() string { return string(s.Kind) }

// settingFlags adds the settings of the given scopes.
func settingFlags(flags *pflag.FlagSet, scopes ...config.Scope) {
	for _, s := range config.Settings() {
		if s.Name == "" || !slices.Contains(scopes, s.Scope) {
			continue
		}
		flag := flags.VarPF(&setting{Setting: s}, s.Name, "", s.Usage)
		if s.Kind == config.KindBool {
			flag.NoOptDefVal = "true"
		}
	}
}

// syncFlags adds the settings of a sync.
func syncFlags(cmd *cobra.Command) { settingFlags(cmd.Flags(), config.ScopeSync) }

// globalFlags adds the flags of every command.
func (a *app) globalFlags(flags *pflag.FlagSet) {
	flags.StringVar(&a.configPath, "config", "", "The config file. Default: kbsync.yaml in the working directory, if it exists.")
	flags.BoolVar(&a.json, "json", false, "Print results as JSON; the same as -o json.")
	flags.StringVarP(&a.format, "output", "o", "", "Format of the results: text, json, csv and html (kbsync sources only), or markdown (kbsync plan only).")
	flags.BoolVarP(&a.out.Quiet, "quiet", "q", false, "Print only warnings and errors.")
	flags.CountVarP(&a.out.Verbose, "verbose", "v", "Log each document; -vv logs each request.")
	flags.BoolVar(&a.useEmulator, "emulator", false, "Use the embedded emulator of the API, with a separate state.")
	settingFlags(flags, config.ScopeAll)
	flags.SortFlags = false
}

// settingsOf returns the settings that the command line sets.
func settingsOf(cmd *cobra.Command) map[string][]string {
	given := map[string][]string{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if s, ok := f.Value.(*setting); ok {
			given[f.Name] = s.values
		}
	})
	return given
}

// fromEnvironment sets each flag that is not a config setting from its variable: --config from KBSYNC_CONFIG.
func fromEnvironment(cmd *cobra.Command, env []string) error {
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, ok := f.Value.(*setting); ok || f.Changed || failed != nil || f.Name == "help" {
			return
		}
		name := "KBSYNC_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if text := variable(env, name); text != "" {
			if err := cmd.Flags().Set(f.Name, text); err != nil {
				failed = usageError(fmt.Sprintf("%s: %v", name, err))
			}
		}
	})
	return failed
}

// otherFlags returns the names of the flags of all commands that are not config settings.
func otherFlags(root *cobra.Command) []string {
	var names []string
	add := func(f *pflag.Flag) {
		if _, ok := f.Value.(*setting); !ok && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	}
	root.PersistentFlags().VisitAll(add)
	for _, c := range root.Commands() {
		c.Flags().VisitAll(add)
		names = append(names, otherFlags(c)...)
	}
	return names
}

// variable returns the last value of an environment variable.
func variable(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if key, value, _ := strings.Cut(e, "="); key == name {
			return value
		}
	}
	return ""
}
