package snapshot_test

import (
	"context"
	"fmt"
	"log"

	"go.uber.org/zap"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/snapshot"
)

// A backup is made of one member.
func ExampleSaveWithVersion() {
	cfg := clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}}
	version, err := snapshot.SaveWithVersion(context.Background(), zap.NewExample(), cfg, "backup.db")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("saved a database of version", version)
}

// A backup of a large database tells how far it is.
func ExampleSaveWithProgress() {
	cfg := clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}}
	_, err := snapshot.SaveWithProgress(context.Background(), zap.NewNop(), cfg, "backup.db",
		func(received, total int64) {
			fmt.Printf("\r%3d %%", 100*received/total)
		})
	if err != nil {
		log.Fatal(err)
	}
}
