package clientv3

// SortTarget is the property of keys by which WithSort orders them.
type SortTarget int

// SortOrder is the direction in which WithSort orders keys.
type SortOrder int

const (
	// SortNone leaves keys in the order in which the server has them: ascending by key.
	SortNone SortOrder = iota
	// SortAscend puts the lowest first.
	SortAscend
	// SortDescend puts the highest first.
	SortDescend
)

const (
	// SortByKey sorts by the key.
	SortByKey SortTarget = iota
	// SortByVersion sorts by the number of times a key was written since it was created.
	SortByVersion
	// SortByCreateRevision sorts by the revision in which a key was created.
	SortByCreateRevision
	// SortByModRevision sorts by the revision in which a key was last written.
	SortByModRevision
	// SortByValue sorts by the value.
	SortByValue
)

// SortOption is a sorting: by what and in which direction.
type SortOption struct {
	Target SortTarget
	Order  SortOrder
}
