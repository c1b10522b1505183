// Command release writes what a release consists of: archives, packages, a container image, a Homebrew formula, software bills of
// materials and checksums. It takes the programs that `make` built and compiles nothing. Equal inputs give equal files. Its module is
// apart from kbsync, which keeps the modules of the packagers out of kbsync's module graph.
//
// It is nfpm and go-containerregistry under one roof instead of goreleaser, because compiling goreleaser takes longer than all
// checks of kbsync may.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A release is what main was told on its command line.
type release struct {
	version string    // as `kbsync version` prints it
	time    time.Time // of each file in each result
	source  string    // the repository
	pages   string    // has man and completions, as `make man completions` write them
	out     string    // the directory of the results
	stage   string    // a temporary directory
}

// A program is kbsync for one platform.
type program struct{ os, arch, file string }

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var r release
	var seconds int64
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "the version that the programs print")
	flags.Int64Var(&seconds, "time", 0, "the time of the release, in seconds since 1970")
	flags.StringVar(&r.source, "source", "", "the repository")
	flags.StringVar(&r.pages, "pages", "", "the directory with man and completions")
	flags.StringVar(&r.out, "out", "", "the directory of the results; its results of an earlier run are removed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if r.version == "" || seconds <= 0 || r.source == "" || r.pages == "" || r.out == "" || flags.NArg() == 0 {
		return fmt.Errorf("usage: release -version V -time SECONDS -source DIR -pages DIR -out DIR OS/ARCH=FILE...")
	}
	r.time = time.Unix(seconds, 0).UTC()
	var programs []program
	for _, arg := range flags.Args() {
		platform, file, _ := strings.Cut(arg, "=")
		system, arch, ok := strings.Cut(platform, "/")
		if !ok || file == "" {
			return fmt.Errorf("%q is not OS/ARCH=FILE", arg)
		}
		programs = append(programs, program{system, arch, file})
	}
	return r.write(programs)
}

// write writes all results of the programs.
func (r *release) write(programs []program) (err error) {
	if r.stage, err = os.MkdirTemp("", "release"); err != nil {
		return err
	}
	defer os.RemoveAll(r.stage)
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	licenses, err := r.licenses(programs)
	if err == nil {
		err = r.writeLicenses(licenses)
	}
	if err != nil {
		return fmt.Errorf("read licences: %w", err)
	}
	var images []program
	for _, p := range programs {
		if err := r.writeArchive(p); err != nil {
			return fmt.Errorf("write archive for %s/%s: %w", p.os, p.arch, err)
		}
		if err := r.writeBill(p, licenses); err != nil {
			return fmt.Errorf("write bill of materials for %s/%s: %w", p.os, p.arch, err)
		}
		if p.os != "linux" {
			continue
		}
		images = append(images, p)
		if err := r.writePackages(p); err != nil {
			return fmt.Errorf("write packages for %s: %w", p.arch, err)
		}
	}
	if len(images) > 0 {
		if err := r.writeImage(images); err != nil {
			return fmt.Errorf("write image: %w", err)
		}
	}
	if err := r.writeFormula(programs); err != nil {
		return fmt.Errorf("write formula: %w", err)
	}
	return r.writeChecksums()
}

// name returns the name of the result for a platform: kbsync_1.2.3_linux_amd64 and the ending.
func (r *release) name(p program, ending string) string {
	return fmt.Sprintf("kbsync_%s_%s_%s%s", strings.TrimPrefix(r.version, "v"), p.os, p.arch, ending)
}

// create creates a result.
func (r *release) create(name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(r.out, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
}

// writeChecksums writes SHA256SUMS, in the format of sha256sum, for all other results.
func (r *release) writeChecksums() error {
	names, err := filepath.Glob(filepath.Join(r.out, "*"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	var sums strings.Builder
	for _, name := range names {
		sum, err := checksum(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, filepath.Base(name))
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}

// checksum returns the SHA-256 of a file in hexadecimal digits.
func checksum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
