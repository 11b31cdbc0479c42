"""Makes the .keras archives of these tests, with the outputs that Keras computes for a fixed input.

    pip install tensorflow-cpu tf-keras h5py && python make_archives.py          # Keras 3 and Keras 2
    pip install 'tensorflow-cpu==2.12.*' && python make_archives.py              # adds those of Keras 2.12

Each model NAME gives NAME.keras (or NAME.h5) and NAME.json, as make.py does.
"""

import json
import os
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

RNG = np.random.default_rng(11)


def save(name, model, kind=".keras", spread=1.0, **format):
    for w in model.weights:
        values = RNG.normal(0, 0.4, w.shape)
        w.assign(np.abs(values) + 0.2 if "variance" in getattr(w, "path", w.name) else values)
    x = RNG.normal(0, spread, (1, *model.input_shape[1:])).astype("float32")
    y = np.asarray(model.predict(x, verbose=0))
    with open(name + ".json", "w") as f:
        rounded = [float("%.7g" % v) for v in y.ravel()]
        json.dump({"input": [float("%.9g" % v) for v in x.ravel()], "output": rounded}, f)
        f.write("\n")
    model.save(name + kind, **format)


def nested(k):
    """Layers of one type and shape, in models within models: only their order tells them apart."""
    L = k.layers
    def tower(name):
        return k.Sequential([k.Input((4,)), L.Dense(4, activation="tanh"), L.Dropout(0.1), L.Dense(4)], name=name)
    i = k.Input((4,))
    plain = k.Sequential([k.Input((4,)), L.ReLU()], name="plain")
    x = tower("right")(plain(tower("left")(L.Dense(4, name="first")(i))))
    return k.Model(i, L.Dense(4, name="last")(L.Dense(4)(x)))


def image(k):
    L = k.layers
    layers = [k.Input((6, 6, 1)), L.Conv2D(2, 3, padding="same", activation="relu"), L.BatchNormalization()]
    layers += [L.SeparableConv2D(2, 2, depth_multiplier=2), L.MaxPooling2D(2), L.Conv2D(2, 2), L.Flatten()]
    return k.Sequential(layers + [L.Dense(3, activation="softmax")])


def functions(k):
    """Every activation, on values that reach both of its sides."""
    L = k.layers
    i = k.Input((16,))
    names = ["hard_sigmoid", "softplus", "elu", "swish", "gelu", "relu6", "sigmoid", "tanh", "relu"]
    layers = [L.Activation(n) for n in names] + [L.ELU(0.5), L.LeakyReLU(), L.ReLU(max_value=2.0)]
    return k.Model(i, L.Concatenate()([layer(i) for layer in layers]))


def plain(k):
    return k.Sequential([k.Input((4,)), k.layers.Dense(5, activation="elu"), k.layers.Dense(2)])


def deflated(name):
    """The same archive as a repacking tool leaves it: a tenth as large."""
    with zipfile.ZipFile(name + ".keras") as z:
        parts = [(n, z.read(n)) for n in z.namelist()]
    with zipfile.ZipFile(name + ".keras", "w", zipfile.ZIP_DEFLATED) as z:
        for n, data in parts:
            z.writestr(n, data)


try:
    import keras as keras3
    import tf_keras as keras2
except ImportError:
    import tensorflow as tf

    save("keras2_12_nested", nested(tf.keras), save_format="keras_v3")
    deflated("keras2_12_nested")
else:
    save("keras3_archive", plain(keras3))
    save("keras3_archive_nested", nested(keras3))
    save("keras2_archive_nested", nested(keras2), save_format="keras")
    save("keras3_archive_image", image(keras3))
    save("keras3_archive_functions", functions(keras3), spread=4.0)
    for name in ["keras3_archive_nested", "keras2_archive_nested", "keras3_archive_image", "keras3_archive_functions"]:
        deflated(name)
    save("keras2_functions", functions(keras2), kind=".h5", spread=4.0)
