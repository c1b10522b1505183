// Command kbsync uploads document folders to a ReplyCX knowledge base and keeps it up to date.
//
// Each command has its own file. All commands share app.go (config, state and API), flags.go and exit.go, and print to the
// console of package console.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/apicommand"
	"github.com/kbsync/kbsync/internal/console"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit code.
func run(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) int {
	signals := watchSignals(ctx)
	defer signals.end()

	a := &app{env: env, stdin: stdin, out: console.New(stdout, stderr, variable(env, "TERM") == "dumb"), now: time.Now, signals: signals}
	root := a.rootCommand()
	root.SetArgs(args)
	// This context ends with the first signal. Work that may finish after it takes a context of signals instead.
	err := root.ExecuteContext(signals.soft)
	a.traces.end()
	if err == nil {
		return exitDone
	}
	code := exitCode(err)
	if code == exitOther && signals.soft.Err() != nil {
		code = exitInterrupted
	}
	a.fail(err, code)
	return code
}

// fail prints the error that ends the program.
func (a *app) fail(err error, code int) {
	text := err.Error()
	if text == "" {
		return
	}
	if code == exitInterrupted && !is[*apicommand.PlainError](err) {
		text = "interrupted; the next run does the remaining work"
	}
	a.out.Fail(text)
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kbsync",
		Short: "Keep a ReplyCX knowledge base up to date with document folders",
		Long: `kbsync keeps a ReplyCX knowledge base up to date with document folders. It uploads each new or changed document once
and follows its training until it has completed or failed.`,
		Example: `  kbsync sync ./docs --knowledge-base 876 --emulator    # try it without an account
  kbsync plan ./docs --knowledge-base 876               # what would be uploaded
  kbsync sync ./docs --knowledge-base 876               # upload it`,
		Args:                       cobra.ArbitraryArgs,
		SilenceErrors:              true,
		SilenceUsage:               true,
		DisableAutoGenTag:          true,
		SuggestionsMinimumDistance: 2,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			message := fmt.Sprintf("unknown command %s", console.Quoted(args[0]))
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return usageError(message + "; did you mean " + strings.Join(near, " or ") + "?")
			}
			return usageError(message + "; kbsync help lists the commands")
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.begin(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.out.Stdout)
	root.SetErr(a.out.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Sprintf("%v; %s --help lists the flags", err, cmd.CommandPath()))
	})
	a.globalFlags(root.PersistentFlags())
	a.addCommands(root)
	a.wrapHelp(root)
	return root
}

// addCommands adds the commands in the groups in which the help lists them.
func (a *app) addCommands(root *cobra.Command) {
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"sync", "Sync:", []*cobra.Command{
			a.syncCommand(), a.watchCommand(), a.planCommand(), a.applyCommand(), a.workerCommand(),
		}},
		{"look", "Look:", []*cobra.Command{
			a.statusCommand(), a.serveCommand(), a.explainCommand(), a.sourcesCommand(), a.verifyCommand(), a.checkCommand(), a.waitCommand(),
		}},
		{"repair", "Repair and back up:", []*cobra.Command{
			a.retryCommand(), a.reindexCommand(), a.stateCommand(), a.forgetCommand(),
		}},
		{"setup", "Set up and try:", []*cobra.Command{
			a.initCommand(), a.emulatorCommand(), a.apiCommand(), a.versionCommand(),
		}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.id
		}
		root.AddCommand(group.commands...)
	}
	root.SetHelpCommandGroupID("setup")
	root.SetCompletionCommandGroupID("setup")
}

// wrapHelp makes the help fit the terminal.
func (a *app) wrapHelp(root *cobra.Command) {
	width := a.out.Width()
	if width == 0 {
		return
	}
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", fmt.Sprintf("Flags.FlagUsagesWrapped %d ", width)))
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.Long = console.Wrap(console.Unwrap(cmd.Long), width)
		help(cmd, args)
	})
}

// atMost is cobra.MaximumNArgs with a message that shows the usage of the command.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError(fmt.Sprintf("unexpected argument %s; usage: %s", console.Quoted(args[n]), cmd.UseLine()))
		}
		return nil
	}
}

// exactly is cobra.ExactArgs with a message that shows the usage of the command.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return usageError("missing argument; usage: " + cmd.UseLine())
		}
		return atMost(n)(cmd, args)
	}
}
