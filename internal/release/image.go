package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is the owner of /data and the user of the process: "nonroot", as in other images without a shell.
const user = 65532

// writeImage writes an archive of an OCI image layout with one image a program. It needs neither a daemon nor a registry: the image
// has no base.
func (r *release) writeImage(programs []program) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, p := range programs {
		image, err := r.image(p)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: p.os, Architecture: p.arch}},
		})
	}
	dir := filepath.Join(r.stage, "image")
	root, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	name := map[string]string{"org.opencontainers.image.ref.name": r.reference()}
	if err := root.AppendIndex(index, layout.WithAnnotations(name)); err != nil {
		return err
	}
	return r.archiveLayout(dir)
}

// reference returns the tag of the image.
func (r *release) reference() string { return notInNumber.ReplaceAllString(r.version, "-") }

func (r *release) image(p program) (v1.Image, error) {
	files, err := r.imageFiles(p)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{
		CreatedBy: "kbsync internal/release", Created: v1.Time{Time: r.time},
	}})
	if err != nil {
		return nil, err
	}
	return mutate.ConfigFile(image, r.imageConfig(image, p))
}

// imageConfig adds to the layers of an image how to run it.
func (r *release) imageConfig(image v1.Image, p program) *v1.ConfigFile {
	config, err := image.ConfigFile()
	if err != nil {
		config = &v1.ConfigFile{}
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = p.os, p.arch, v1.Time{Time: r.time}
	config.Config = v1.Config{
		User:       "65532:65532",
		Entrypoint: []string{"/usr/local/bin/kbsync"},
		Cmd:        []string{"--help"},
		// The place of the state of a run without a config file. A variable for the state itself would overrule the config.
		Env:     []string{"XDG_STATE_HOME=/data", "HOME=/data"},
		Volumes: map[string]struct{}{"/data": {}},
		Labels: map[string]string{
			"org.opencontainers.image.title":    "kbsync",
			"org.opencontainers.image.version":  r.version,
			"org.opencontainers.image.source":   "https://github.com/kbsync/kbsync",
			"org.opencontainers.image.licenses": "Apache-2.0",
		},
	}
	return config
}

// imageFiles returns the files of an image as a tar: the program, the certificates of the authorities, the user, and the directory
// of the state, whose owner and mode a new volume gets.
func (r *release) imageFiles(p program) ([]byte, error) {
	binary, err := os.ReadFile(p.file)
	if err != nil {
		return nil, err
	}
	license, err := os.ReadFile(filepath.Join(r.source, "LICENSE"))
	if err != nil {
		return nil, err
	}
	others, err := os.ReadFile(filepath.Join(r.stage, licensesFile))
	if err != nil {
		return nil, err
	}
	type file struct {
		name string
		mode int64
		user int
		data []byte // nil for a directory
	}
	var buffer bytes.Buffer
	t := tar.NewWriter(&buffer)
	for _, f := range []file{
		{"data/", 0o700, user, nil},
		{"etc/", 0o755, 0, nil},
		{"etc/group", 0o644, 0, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"etc/passwd", 0o644, 0, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/data:/sbin/nologin\n")},
		{"etc/ssl/", 0o755, 0, nil},
		{"etc/ssl/certs/", 0o755, 0, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, 0, certificates()},
		{"tmp/", 0o1777, 0, nil},
		{"usr/", 0o755, 0, nil},
		{"usr/local/", 0o755, 0, nil},
		{"usr/local/bin/", 0o755, 0, nil},
		{"usr/local/bin/kbsync", 0o755, 0, binary},
		{"usr/local/share/", 0o755, 0, nil},
		{"usr/local/share/kbsync/", 0o755, 0, nil},
		{"usr/local/share/kbsync/LICENSE", 0o644, 0, license},
		{"usr/local/share/kbsync/" + licensesFile, 0o644, 0, others},
	} {
		header := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.user, Gid: f.user, Size: int64(len(f.data)), ModTime: r.time, Typeflag: tar.TypeReg}
		if f.data == nil {
			header.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := t.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return buffer.Bytes(), nil
}

// certificates returns the roots of Mozilla as PEM, of the version in go.mod. Roots with a constraint are left out: PEM cannot
// express the constraint.
func certificates() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			text.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return text.Bytes()
}

// archiveLayout writes the directory of an image layout as a tar, with its files in a fixed order.
func (r *release) archiveLayout(dir string) error {
	f, err := r.create("kbsync_" + r.reference() + "_image.tar")
	if err != nil {
		return err
	}
	t := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		relative, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		return copyFile(name, func(size int64) (io.Writer, error) {
			return t, t.WriteHeader(&tar.Header{
				Name: path.Clean(filepath.ToSlash(relative)), Mode: 0o644, Size: size, ModTime: r.time, Typeflag: tar.TypeReg,
			})
		})
	})
	return errors.Join(err, t.Close(), f.Close())
}
