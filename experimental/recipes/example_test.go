package recipe_test

import (
	"fmt"
	"log"

	"github.com/seed-d18e112a/clientv3"
	"github.com/seed-d18e112a/clientv3/concurrency"
	recipe "github.com/seed-d18e112a/clientv3/experimental/recipes"
)

// Some processes put tasks into a queue, others take them out: each is taken out once.
func ExampleQueue() {
	cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	queue := recipe.NewQueue(cli, "tasks")
	if err := queue.Enqueue("first"); err != nil {
		log.Fatal(err)
	}
	task, err := queue.Dequeue() // waits for one
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(task)
}

// Three processes begin a computation together, and end it together.
func ExampleDoubleBarrier() {
	compute := func(session *concurrency.Session) error {
		barrier := recipe.NewDoubleBarrier(session, "computation", 3)
		if err := barrier.Enter(); err != nil {
			return err
		}
		fmt.Println("all three are here")
		return barrier.Leave()
	}
	_ = compute
}

// Many read at the same time, who writes is alone.
func ExampleRWMutex() {
	read := func(session *concurrency.Session) error {
		lock := recipe.NewRWMutex(session, "locks/document")
		if err := lock.RLock(); err != nil {
			return err
		}
		fmt.Println("nobody writes")
		return lock.RUnlock()
	}
	_ = read
}
