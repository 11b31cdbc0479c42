"""Makes the model files of these tests, with the outputs that Keras computes for a fixed input.

    pip install tensorflow-cpu tf-keras h5py      # Keras 3 and Keras 2
    python make.py                                # in this folder

Each model NAME gives NAME.h5 (whole model, or weights with NAME.architecture.json) and NAME.json:
{"input": [...], "output": [...]}, one sample in row-major order. Weights are drawn from a fixed seed and small enough
that no activation saturates; they have no meaning.
"""

import json
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import h5py
import keras as keras3
import numpy as np
import tf_keras as keras2

RNG = np.random.default_rng(7)


def randomize(model):
    """Every weight random, variances positive."""
    for w in model.weights:
        name = getattr(w, "path", w.name)
        values = RNG.normal(0, 0.4, w.shape)
        w.assign(np.abs(values) + 0.2 if "variance" in name else values)


def expected(name, model):
    shape = model.input_shape[1:]
    x = RNG.normal(0, 1, (1, *shape)).astype("float32")
    y = np.asarray(model.predict(x, verbose=0))
    with open(name + ".json", "w") as f:
        rounded = [float("%.7g" % v) for v in y.ravel()]
        json.dump({"input": [float("%.9g" % v) for v in x.ravel()], "output": rounded}, f)
        f.write("\n")


def save(name, model):
    randomize(model)
    expected(name, model)
    model.save(name + ".h5")


def sequential(k, name):
    L = k.layers
    return k.Sequential(
        [
            L.InputLayer(input_shape=(9, 8, 2)) if k is keras2 else k.Input((9, 8, 2)),
            L.Conv2D(3, 3, strides=2, padding="same", activation="relu"),
            L.DepthwiseConv2D((3, 2), depth_multiplier=2, padding="same"),
            L.BatchNormalization(epsilon=0.01),
            L.MaxPooling2D(2, padding="same"),
            L.SeparableConv2D(4, 2, depth_multiplier=3, activation="relu6", padding="same"),
            L.LeakyReLU(),
            L.SpatialDropout2D(0.1),
            L.ZeroPadding2D(((1, 0), (0, 2))),
            L.AveragePooling2D(3, strides=2, padding="same"),
            L.Flatten(),
            L.GaussianNoise(0.1),
            L.Dropout(0.5),
            L.Dense(4, activation="softmax"),
        ],
        name=name,
    )


def functional(k, name):
    L = k.layers
    i = k.Input((8, 6, 4), name="image")
    a = L.Conv2D(4, (3, 2), dilation_rate=2, padding="same", groups=2, use_bias=False)(i)
    a = L.BatchNormalization(center=False)(a)
    b = L.BatchNormalization(scale=False)(L.Activation("leaky_relu" if k is keras3 else "relu")(i))
    x = L.Add()([a, b, i])
    if k is keras3:
        x = x + b  # a keras.ops.Add, not a layer
    x = L.Concatenate()([x, L.ReLU(max_value=1.5)(a)])
    m = L.GlobalMaxPooling2D(keepdims=True)(x)
    m = L.Dense(3, activation=L.LeakyReLU(0.1))(m)
    m = L.Flatten()(m)
    g = L.GlobalAveragePooling2D()(x)
    r = L.Reshape((-1, 4))(x)
    shared = L.Dense(2, activation="relu", name="shared")
    r = L.Flatten()(L.Concatenate(axis=1)([shared(r), shared(L.Reshape((2, 4))(g))]))
    x = L.Concatenate(axis=-1)([m, g, r])
    x = L.Dense(2)(L.ReLU(negative_slope=0.25)(x))
    L.Dense(5, name="unused")(x)
    return k.Model(i, L.Activation("sigmoid")(x), name=name)


def nested(k, name):
    L = k.layers
    features = k.Sequential(
        [k.Input((6, 6, 1)), L.Conv2D(2, 3, name="conv"), L.BatchNormalization(name="norm"), L.ReLU(name="act")],
        name="features",
    )
    features.get_layer("norm").trainable = False
    j = k.Input((6, 6, 1))
    # Keras 2 cannot save two layers of one name inside a nested model.
    y = L.Dense(3, name="conv" if k is keras3 else "dense_inside")(L.Flatten()(features(j)))
    tower = k.Model(j, y, name="tower")
    i = k.Input((6, 6, 1))
    once, twice = tower(i), tower(L.ZeroPadding2D((1, 1))(L.AveragePooling2D(3, strides=1)(i)))
    x = L.Add()([once, twice])
    head = k.Sequential([k.Input((3,)), L.Dense(2, name="dense"), L.Softmax()], name="head")
    return k.Model(i, head(x), name=name)


def transfer(k, name):
    """A Sequential model whose first layer is a model."""
    L = k.layers
    base = k.Sequential([k.Input((5, 5, 1)), L.Conv2D(2, 2, activation="relu", name="c")], name="base")
    base.trainable = False
    model = k.Sequential([base, L.Flatten(), L.Dense(2)], name=name)
    model.build((None, 5, 5, 1))
    return model


def chunked(attrs, name, values):
    """A list of names in pieces of two, as Keras does with long ones."""
    for n in range(0, len(values), 2):
        attrs["%s%d" % (name, n // 2)] = values[n : n + 2]


def keras_2_2(name):
    """The layout of Keras 2.2: no InputLayer, fixed-length strings, lists of names in chunks."""
    L = keras2.layers
    model = keras2.Sequential(
        [
            L.Conv2D(2, 3, activation="relu", input_shape=(5, 5, 1), name="conv"),
            L.Flatten(name="flat"),
            L.Dense(3, activation="relu", name="one"),
            L.Dense(2, name="two"),
        ],
        name="old",
    )
    randomize(model)
    expected(name, model)
    keep = {"Conv2D": ["filters", "kernel_size", "strides", "padding", "dilation_rate", "data_format"]}
    keep["Dense"] = ["units"]
    keep["Flatten"] = ["data_format"]
    layers = []
    for layer in model.layers:
        full, kind = layer.get_config(), type(layer).__name__
        config = {"name": layer.name, "trainable": True}
        config |= {key: full[key] for key in keep[kind]}
        if kind != "Flatten":
            config |= {"activation": full["activation"], "use_bias": True}
        layers.append({"class_name": kind, "config": config})
    layers[0]["config"]["batch_input_shape"] = [None, 5, 5, 1]
    text = json.dumps({"class_name": "Sequential", "config": layers})
    with h5py.File(name + ".h5", "w") as f:
        f.attrs["keras_version"] = np.bytes_(b"2.2.2")
        f.attrs["model_config"] = np.bytes_(text.encode())
        g = f.create_group("model_weights")
        chunked(g.attrs, "layer_names", [layer.name.encode() for layer in model.layers])
        for layer in model.layers:
            sub = g.create_group(layer.name)
            names = [w.name.encode() for w in layer.weights]
            if names:
                chunked(sub.attrs, "weight_names", names)
            else:
                sub.attrs["weight_names"] = np.array([])
            for n, w in zip(names, layer.weights):
                sub.create_dataset(n.decode(), data=w.numpy())


def weights_only(name):
    """Weights and architecture in two files."""
    L = keras2.layers
    model = keras2.Sequential([L.InputLayer(input_shape=(4,)), L.Dense(3, activation="relu"), L.Dense(2)])
    randomize(model)
    expected(name, model)
    model.save_weights(name + ".h5")
    with open(name + ".architecture.json", "w") as f:
        f.write(model.to_json() + "\n")


def numbered(name):
    """The .weights.h5 of Keras 3, whose weights have numbers and no names."""
    L = keras3.layers
    inner = [keras3.Input((6, 6, 1)), L.Conv2D(2, 3), L.BatchNormalization(), L.Conv2D(2, 1)]
    i = keras3.Input((6, 6, 1))
    x = L.SeparableConv2D(2, 2, depth_multiplier=2)(keras3.Sequential(inner)(i))
    x = L.DepthwiseConv2D(2)(L.BatchNormalization(scale=False)(x + x))
    x = L.Dense(3, activation=L.LeakyReLU())(L.Flatten()(x))
    model = keras3.Model(i, L.Dense(2)(x))
    randomize(model)
    expected(name, model)
    model.save_weights(name + ".weights.h5")
    os.rename(name + ".weights.h5", name + ".h5")
    with open(name + ".architecture.json", "w") as f:
        f.write(model.to_json() + "\n")


def to_json(name):
    """Keras 3: a whole model and, beside it, the richer form that to_json gives."""
    L = keras3.layers
    i = keras3.Input((6, 6, 1))
    x = L.Conv2D(2, 3)(i)
    model = keras3.Model(i, L.Dense(2)(L.Flatten()(L.Add()([x, x + x]))))
    save(name, model)
    with open(name + ".architecture.json", "w") as f:
        f.write(model.to_json() + "\n")


def compressed(name):
    """Weights stored in deflated chunks and double precision, as repacking tools leave them."""
    L = keras3.layers
    save(name, keras3.Sequential([keras3.Input((8,)), L.Dense(16, activation="relu"), L.Dense(2)], name="packed"))
    with h5py.File(name + ".h5", "r+") as f:
        paths = []
        f.visititems(lambda p, o: paths.append(p) if isinstance(o, h5py.Dataset) else None)
        for p in paths:
            values = f[p][()].astype("float64")
            del f[p]
            f.create_dataset(p, data=values, chunks=True, compression="gzip", shuffle=True)


def activations(name):
    """Sigmoid and tanh between layers, and a sigmoid that is the last."""
    L = keras3.layers
    layers = [keras3.Input((6,)), L.Dense(5, activation="tanh"), L.Dropout(0.5), L.Dense(4, activation="sigmoid")]
    layers += [L.Dense(4), L.Activation("tanh"), L.Dense(3, activation="sigmoid")]
    save(name, keras3.Sequential(layers, name="activations"))


def sparse(name):
    """Datasets of 1 GiB and 4 TiB of which nothing was ever written, in a file of a few kB."""
    with h5py.File(name + ".h5", "w") as f:
        f.attrs["layer_names"] = [b"gigabyte", b"terabytes"]
        for layer, side in [("gigabyte", 2**14), ("terabytes", 2**20)]:
            g = f.create_group(layer)
            g.attrs["weight_names"] = [b"kernel"]
            g.create_dataset("kernel", shape=(side, side), dtype="float32", chunks=(64, 64))


for kind in [sequential, functional, nested, transfer]:
    for k, version in [(keras2, "keras2"), (keras3, "keras3")]:
        save("%s_%s" % (version, kind.__name__), kind(k, kind.__name__))
keras_2_2("keras22")
weights_only("keras2_weights")
to_json("keras3_to_json")
numbered("keras3_weights")
compressed("keras3_compressed")
activations("keras3_activations")
sparse("hostile_sparse")
