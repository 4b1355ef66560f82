// Package snapshot saves the database of a member to a file, as a backup that etcdutl restores:
//
//	version, err := snapshot.SaveWithVersion(ctx, lg, clientv3.Config{Endpoints: []string{endpoint}}, "backup.db")
//
// The file is either there and complete, or not there at all: what is read goes to another file in the same directory,
// which gets the name only once the sum at its end was found right and all is on the disk. On failure nothing is left
// behind, and a file that had the name before is as it was. Only a process that is killed leaves the other file,
// "<name>.part" with a number, which can be deleted.
package snapshot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
)

// SaveWithVersion saves a snapshot of the member at the one endpoint of cfg to the file dbPath, and returns the version
// of the database, such as "3.7.0"; it is empty from servers before 3.6, and from later ones for the first seconds of a
// new cluster. A file with that name is replaced; it is readable for its owner only. Lg is told of the beginning and the
// end; nil is allowed.
//
// The client that it makes is closed when it returns. If ctx ends, the connection is lost or the disk is full, the
// error says so and there is no file.
func SaveWithVersion(ctx context.Context, lg *zap.Logger, cfg clientv3.Config, dbPath string) (string, error) {
	return SaveWithProgress(ctx, lg, cfg, dbPath, nil)
}

// SaveWithProgress is SaveWithVersion that tells how far it is: progress is called as bytes are written, with their
// number so far and in all, by the goroutine that called, which it holds up. Both numbers are equal once everything is
// there; that the file is complete is known when SaveWithProgress returns without an error.
func SaveWithProgress(ctx context.Context, lg *zap.Logger, cfg clientv3.Config, dbPath string,
	progress func(received, total int64),
) (version string, err error) {
	if len(cfg.Endpoints) != 1 {
		return "", fmt.Errorf("snapshot must be requested to one selected node, not multiple %v", cfg.Endpoints)
	}
	if lg == nil {
		lg = zap.NewNop()
	}
	if cfg.Logger == nil && cfg.LogConfig == nil {
		cfg.Logger = lg.Named("client")
	}
	cli, err := clientv3.New(cfg)
	if err != nil {
		return "", err
	}
	defer func() { _ = cli.Close() }()

	begin := time.Now()
	lg.Info("fetching snapshot", zap.String("endpoint", cfg.Endpoints[0]), zap.String("path", dbPath))
	var size int64
	err = writeFile(dbPath, func(w io.Writer) error {
		resp, err := cli.SnapshotWithVersion(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Snapshot.Close() }()
		version, size = resp.Version, resp.Size
		if progress != nil {
			w = &meter{Writer: w, total: size, progress: progress}
		}
		return copyChecked(w, resp.Snapshot, size)
	})
	if err != nil {
		return "", err
	}
	lg.Info("saved snapshot", zap.String("path", dbPath), zap.Int64("bytes", size), zap.String("etcd-version", version),
		zap.Duration("took", time.Since(begin)))
	return version, nil
}

// copyChecked copies a snapshot of the given size, and checks the sum that it ends with. The reader ends without an
// error only if it had that size.
func copyChecked(w io.Writer, r io.Reader, size int64) error {
	hash := sha256.New()
	var sum [sha256.Size]byte
	_, err := io.CopyN(io.MultiWriter(w, hash), r, size-sha256.Size)
	if err == nil {
		_, err = io.ReadFull(r, sum[:])
	}
	if err == nil {
		_, err = io.Copy(io.Discard, r) // only the end tells that the stream is whole
	}
	if err != nil {
		return fmt.Errorf("snapshot is incomplete: %w", err)
	}
	if [sha256.Size]byte(hash.Sum(nil)) != sum {
		return errors.New("snapshot is damaged: its sha256 checksum does not match")
	}
	_, err = w.Write(sum[:])
	return err
}

// meter tells how much is written.
type meter struct {
	io.Writer
	received, total int64
	progress        func(received, total int64)
}

func (m *meter) Write(p []byte) (int, error) {
	n, err := m.Writer.Write(p)
	m.received += int64(n)
	m.progress(m.received, m.total)
	return n, err
}

// writeFile makes a file with what write writes: under another name until it is complete and on the disk.
func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part")
	if err != nil {
		return err
	}
	name, complete := f.Name(), false
	defer func() {
		if !complete { // write has failed, or panicked
			_ = f.Close() // the first error is the one to tell
			_ = os.Remove(name)
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		return err
	}
	name = path
	if err := syncDir(filepath.Dir(path)); err != nil {
		return err
	}
	complete = true
	return nil
}

// syncDir makes the names in a directory durable, where the system can do that.
func syncDir(path string) (err error) {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := dir.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
