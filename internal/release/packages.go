package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/apk"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

// formats are the packages that are written. nfpm registers packagers in an init function; these need no registry.
var formats = map[string]interface {
	nfpm.Packager
}{"apk": apk.Default, "deb": deb.Default, "rpm": rpm.DefaultRPM}

// writePackages writes the packages of a program. nfpm.yaml lists their contents.
func (r *release) writePackages(p program) error {
	stage := filepath.Join(r.stage, p.arch)
	if err := r.stageFiles(stage); err != nil {
		return err
	}
	binary, err := filepath.Abs(p.file)
	if err != nil {
		return err
	}
	source, err := filepath.Abs(r.source)
	if err != nil {
		return err
	}
	for _, format := range []string{"apk", "deb", "rpm"} {
		values := map[string]string{
			"ARCH": p.arch, "BINARY": binary, "PAGES": r.pages, "SOURCE": source, "STAGE": stage,
			"LICENSES": filepath.Join(r.stage, licensesFile),
			"VERSION":  packageVersion(r.version, format, r.time.Format("20060102150405")),
		}
		config, err := nfpm.ParseFileWithEnvMapping(filepath.Join(r.source, "internal/release/nfpm.yaml"), func(name string) string { return values[name] })
		if err != nil {
			return err
		}
		info, err := config.Get(format)
		if err != nil {
			return err
		}
		info.MTime = r.time
		for _, c := range info.Contents {
			if c.FileInfo == nil {
				c.FileInfo = &files.ContentFileInfo{}
			}
			c.FileInfo.MTime = r.time
		}
		scripts := filepath.Join(stage, "scripts")
		info.Scripts = nfpm.Scripts{
			PreInstall:  filepath.Join(scripts, "preinstall.sh"),
			PostInstall: filepath.Join(scripts, "postinstall.sh"),
			PreRemove:   filepath.Join(scripts, "preremove.sh"),
			PostRemove:  filepath.Join(scripts, "postremove.sh"),
		}
		info.APK.Scripts.PostUpgrade = info.Scripts.PostInstall
		if err := r.writePackage(nfpm.WithDefaults(info), formats[format]); err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	return nil
}

func (r *release) writePackage(info *nfpm.Info, packager nfpm.Packager) error {
	f, err := r.create(packager.ConventionalFileName(info))
	if err != nil {
		return err
	}
	return errors.Join(packager.Package(info, f), f.Close())
}

// stageFiles writes the files of the packages that differ from those of the repository.
func (r *release) stageFiles(stage string) error {
	if err := r.compressPages(filepath.Join(stage, "man")); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(stage, "units"), 0o755); err != nil {
		return err
	}
	for _, name := range []string{"kbsync.service", "kbsync-sync.service", "kbsync-sync.timer"} {
		text, err := os.ReadFile(filepath.Join(r.source, "examples/systemd", name))
		if err != nil {
			return err
		}
		packaged, err := packagedUnit(name, string(text))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(stage, "units", name), []byte(packaged), 0o644); err != nil {
			return err
		}
	}
	return r.stageScripts(filepath.Join(stage, "scripts"))
}

// stageScripts copies the scripts of the packages with the time of the release: an apk has the time of the files that it is made of.
func (r *release) stageScripts(dir string) error {
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(r.source, "internal/release/scripts"))); err != nil {
		return err
	}
	scripts, err := os.ReadDir(dir)
	for _, script := range scripts {
		err = errors.Join(err, os.Chtimes(filepath.Join(dir, script.Name()), r.time, r.time))
	}
	return err
}

// packagedUnit returns a unit of examples/systemd as a package installs it: the program is in /usr/bin, and the comment about an
// installation by hand is replaced.
func packagedUnit(name, text string) (string, error) {
	_, text, ok := strings.Cut(text, "\n[Unit]\n")
	if !ok {
		return "", fmt.Errorf("examples/systemd/%s does not begin with a comment and [Unit]", name)
	}
	text = strings.ReplaceAll(text, "/usr/local/bin/kbsync", "/usr/bin/kbsync")
	return "# To change settings, run: systemctl edit " + name + "\n[Unit]\n" + text, nil
}

var (
	released    = regexp.MustCompile(`^v(\d+\.\d+\.\d+)(?:-([a-z]+)\.?(\d+))?$`)
	afterTag    = regexp.MustCompile(`^v(\d+\.\d+\.\d+)-(\d+)-(g[0-9a-f]+)(-dirty)?$`)
	notInNumber = regexp.MustCompile(`[^0-9A-Za-z.]+`)
)

// packageVersion returns the version of a package of a format, in the order that its package manager knows. A build of a commit
// without a tag is older than every release. An apk's version cannot hold the name of a commit, so it has the commit's time.
func packageVersion(version, format, time string) string {
	number, suffix := "0.0.0", notInNumber.ReplaceAllString(strings.TrimPrefix(version, "v"), ".")
	if m := released.FindStringSubmatch(version); m != nil {
		switch {
		case m[2] == "":
			return m[1]
		case format == "apk":
			return m[1] + "_" + m[2] + m[3]
		}
		return m[1] + "~" + m[2] + m[3]
	}
	if m := afterTag.FindStringSubmatch(version); m != nil {
		number, suffix = m[1], m[2]+"."+m[3]+strings.ReplaceAll(m[4], "-", ".")
	}
	if format == "apk" {
		return number + "_p" + time
	}
	return number + "+" + suffix
}
