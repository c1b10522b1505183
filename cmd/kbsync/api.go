package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kbsync/kbsync/internal/apicommand"
	"github.com/kbsync/kbsync/internal/config"
	"github.com/kbsync/kbsync/internal/console"
)

func (a *app) apiCommand() *cobra.Command {
	return apicommand.New(apicommand.Program{
		Console: a.out,
		Stdin:   a.stdin,
		Getenv:  func(name string) string { return variable(a.env, name) },
		Hard:    func() context.Context { return a.signals.hard },
		Load: func(cmd *cobra.Command) (*apicommand.Session, error) {
			cfg, err := a.load(cmd)
			if err != nil {
				return nil, err
			}
			return &apicommand.Session{
				Config:   cfg,
				Emulated: a.useEmulator,
				OwnFiles: append(cfg.Private(), a.emulatorFiles(cfg)...),
				Connect: func(ctx context.Context, knowledgeBases ...int64) (*apicommand.Connection, error) {
					return a.connectByHand(ctx, cfg, knowledgeBases)
				},
			}, nil
		},
	})
}

// connectByHand is connect for commands without an inventory. The embedded emulator also has the given knowledge bases.
func (a *app) connectByHand(ctx context.Context, cfg *config.Config, knowledgeBases []int64) (*apicommand.Connection, error) {
	if !a.useEmulator {
		p, err := a.connect(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return &apicommand.Connection{Client: p.client, Close: p.close}, nil
	}
	p, err := a.connectEmulator(cfg, knowledgeBases...)
	if err != nil {
		return nil, err
	}
	a.out.Note("emulator: this is not ReplyCX; the emulator keeps its data in %s", console.Printable(emulatorFile(cfg.LocalState)))
	return &apicommand.Connection{Client: p.client, Emulator: p.emulator.Emulator, Close: p.close}, nil
}
