//! What each type of Keras layer becomes.

mod activation;
mod conv;
mod dense;
mod merge;
mod norm;
mod pool;
mod shape;

use trefoil_nn::graph::{Array, Layer, Post};

use super::build::{Builder, Flow};
use super::json::Settings;
use super::weights::Place;
use crate::ImportError;

/// The types of layer that can be run; nested models of them as well.
pub const SUPPORTED: &[&str] = &[
    "Activation",
    "ActivityRegularization",
    "Add",
    "AveragePooling2D",
    "BatchNormalization",
    "Concatenate",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "ELU",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "InputLayer",
    "LeakyReLU",
    "MaxPooling2D",
    "ReLU",
    "Reshape",
    "SeparableConv2D",
    "Softmax",
    "SpatialDropout2D",
    "ZeroPadding2D",
];

/// Whether every layer of a type has weights.
pub(super) fn has_weights(class: &str) -> bool {
    matches!(class, "Conv2D" | "Dense" | "DepthwiseConv2D" | "SeparableConv2D") || class.starts_with("BatchNorm")
}

/// One call of one layer.
pub(super) struct Call<'c, 'w> {
    /// The graph so far.
    pub(super) builder: &'c mut Builder<'w>,
    /// The layer's settings.
    pub(super) settings: Settings<'c>,
    /// Where its weights are.
    pub(super) place: &'c Place,
    /// What it is called with.
    pub(super) inputs: &'c [Flow],
    /// How many weights have been taken: some files only number them.
    pub(super) weights_taken: usize,
}

/// Translates one call of a layer.
pub(super) fn apply(call: &mut Call<'_, '_>) -> Result<Flow, ImportError> {
    match call.settings.class {
        "Dense" => dense::dense(call),
        "Conv2D" => conv::conv(call),
        "DepthwiseConv2D" => conv::depthwise(call),
        "SeparableConv2D" => conv::separable(call),
        "MaxPooling2D" => pool::windows(call, Layer::MaxPool),
        "AveragePooling2D" => pool::windows(call, Layer::AveragePool),
        "GlobalMaxPooling2D" => pool::global(call, Layer::MaxPool),
        "GlobalAveragePooling2D" => pool::global(call, Layer::AveragePool),
        // The suffix comes from TensorFlow 1.
        "BatchNormalization" | "BatchNormalizationV1" | "BatchNormalizationV2" => norm::batch(call),
        "Activation" => activation::layer(call),
        "ReLU" => activation::relu(call),
        "LeakyReLU" => activation::leaky_relu(call),
        "ELU" => activation::elu(call),
        "Softmax" => activation::softmax(call),
        "Flatten" => shape::flatten(call),
        "Reshape" => shape::reshape(call),
        "ZeroPadding2D" => shape::zero_pad(call),
        "Add" => merge::add(call),
        "Concatenate" => merge::concatenate(call),
        "Dropout" => shape::dropout(call),
        "ActivityRegularization" => call.single(), // a part of the loss
        "SpatialDropout2D" | "GaussianDropout" | "GaussianNoise" => {
            call.only_predicts("does in training what Trefoil does not");
            call.single()
        }
        class => Err(ImportError::UnsupportedLayer {
            layer: call.settings.layer.into(),
            class: class.into(),
            supported: SUPPORTED,
        }),
    }
}

impl Call<'_, '_> {
    /// The only input.
    fn single(&self) -> Result<Flow, ImportError> {
        match self.inputs {
            [one] => Ok(*one),
            more => Err(self.settings.fail(format!("{} inputs, must have one", more.len()))),
        }
    }

    /// Height, width and channels of the only input.
    fn image(&self) -> Result<[usize; 3], ImportError> {
        let shape = self.builder.shape(self.single()?.node);
        shape.try_into().map_err(|_| self.settings.fail(format!("needs an image, its input has shape {shape:?}")))
    }

    /// Notes that the model can predict with this layer, but not be trained.
    fn only_predicts(&mut self, reason: &str) {
        let reason = self.settings.fail(format!("{reason}: the model can predict, but not be trained"));
        self.builder.only_predicts.get_or_insert(reason);
    }

    /// The layer's next weight in Keras' order, called one of `names`.
    fn weight(&mut self, names: &[&str], shape: &[usize]) -> Result<Array, ImportError> {
        let number = self.weights_taken;
        self.weights_taken += 1;
        self.builder.weights.load(self.place, names, number, shape)
    }

    /// The bias of `n` outputs, if the layer has one.
    fn bias(&mut self, n: usize) -> Result<Option<Array>, ImportError> {
        if self.settings.flag("use_bias", true)? { self.weight(&["bias"], &[n]).map(Some) } else { Ok(None) }
    }

    /// Appends a node after all inputs.
    fn push(&mut self, layer: Layer) -> Result<Flow, ImportError> {
        self.push_after("", layer, self.inputs)
    }

    /// Appends a node that is a part of this layer.
    fn push_after(&mut self, part: &str, layer: Layer, inputs: &[Flow]) -> Result<Flow, ImportError> {
        if inputs.iter().any(|i| i.post != Post::None) {
            return Err(self.settings.fail("comes after a softmax, which can only be last"));
        }
        let name = self.settings.layer;
        let name = if part.is_empty() { name.to_string() } else { format!("{name}/{part}") };
        let node = self.builder.push(name, layer, inputs.iter().map(|i| i.node).collect())?;
        Ok(Flow { node, post: Post::None })
    }
}
