package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// server returns the path of an etcd server of the version, after making it if need be.
func server(ctx context.Context, root, version string) (path string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "clientv3-etcd", version)
	switch version {
	case "3.4":
		path = filepath.Join(dir, "usr", "bin", "etcd")
		err = unpack(ctx, dir, path)
	case "3.5", "3.6":
		path = filepath.Join(dir, "etcd")
		err = build(ctx, filepath.Join(root, "etcdtest", "servers", version), path)
	default:
		return "", errors.New("the versions are 3.4, 3.5 and 3.6; 3.7 is what go test runs by itself")
	}
	if err != nil {
		return "", err
	}
	return path, check(ctx, path, version)
}

// build makes the server of a module. Go knows whether there is anything to do.
func build(ctx context.Context, module, path string) error {
	cmd := command(ctx, module, "go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build in %s: %w", module, err)
	}
	return nil
}

// unpack fetches Debian's package and unpacks it, unless the server is there.
func unpack(ctx context.Context, dir, path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	download := func() error { return command(ctx, dir, "apt-get", "download", "etcd-server").Run() }
	err := download()
	if err != nil && !errors.Is(err, exec.ErrNotFound) {
		// There may be no lists of packages yet, and then this helps, given the right to do it.
		if command(ctx, dir, "apt-get", "update").Run() == nil {
			err = download()
		}
	}
	if err != nil {
		return fmt.Errorf("it comes as Debian's package etcd-server, so there has to be Debian and its archive "+
			"(elsewhere use -etcd with the path of a server 3.4): apt-get download: %w", err)
	}
	packages, err := filepath.Glob(filepath.Join(dir, "etcd-server_*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("packages in %s: %q, %w", dir, packages, err)
	}
	if err := command(ctx, dir, "dpkg-deb", "--extract", packages[0], dir).Run(); err != nil {
		return fmt.Errorf("unpacking %s: %w", packages[0], err)
	}
	return os.Remove(packages[0])
}

// check makes sure of the version: a package is of the release of Debian.
func check(ctx context.Context, path, version string) error {
	out, err := command(ctx, "", path, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", path, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	if !strings.HasPrefix(first, "etcd Version: "+version+".") {
		return fmt.Errorf("%s is no etcd %s but says %q; use -etcd with the path of one", path, version, first)
	}
	fmt.Println(path, "is", first)
	return nil
}
